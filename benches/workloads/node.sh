#!/usr/bin/env bash
# about: Node.js: an Express service with the libraries that services have, several hundred modules; asks itself once
# ready: node is ready
# needs: debian
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
step node
debian_packages nodejs ca-certificates
commit node

# This machine's npm, with its settings; nothing of the packages runs here.
step modules
mkdir "$WORK/merged/app"
cat >"$WORK/merged/app/package.json" <<'JSON'
{
  "name": "service",
  "version": "1.0.0",
  "private": true,
  "dependencies": {
    "@apollo/server": "4.11.3",
    "@aws-sdk/client-dynamodb": "3.726.1",
    "@aws-sdk/client-s3": "3.726.1",
    "ajv": "8.17.1",
    "axios": "1.7.9",
    "bullmq": "5.34.10",
    "cheerio": "1.0.0",
    "compression": "1.7.5",
    "cors": "2.8.5",
    "date-fns": "4.1.0",
    "express": "4.21.2",
    "graphql": "16.10.0",
    "handlebars": "4.7.8",
    "helmet": "8.0.0",
    "ioredis": "5.4.2",
    "joi": "17.13.3",
    "jsonwebtoken": "9.0.2",
    "knex": "3.1.0",
    "lodash": "4.17.21",
    "mongoose": "8.9.5",
    "morgan": "1.10.0",
    "mysql2": "3.12.0",
    "nodemailer": "6.9.16",
    "passport": "0.7.0",
    "pg": "8.13.1",
    "pug": "3.0.3",
    "rxjs": "7.8.1",
    "sequelize": "6.37.5",
    "socket.io": "4.8.1",
    "winston": "3.17.0"
  }
}
JSON
npm install --prefix "$WORK/merged/app" --cache "$WORK/npm" --no-audit --no-fund --omit=dev --ignore-scripts --loglevel=error </dev/null
commit modules

step program
cat >"$WORK/merged/app/server.js" <<'JS'
// Loads what package.json names, serves on a port that the system chooses, and answers itself once.
'use strict';
const { dependencies } = require('./package.json');
const loaded = Object.fromEntries(Object.keys(dependencies).map((name) => [name, require(name)]));
const express = loaded.express;
const http = require('http');

process.on('SIGTERM', () => process.exit(0));
const app = express();
app.use(loaded.helmet(), loaded.compression(), loaded.cors(), express.json());
app.get('/', (request, response) => response.json({ files: Object.keys(require.cache).length }));
const server = app.listen(0, '127.0.0.1', () => {
    http.get({ host: '127.0.0.1', port: server.address().port, path: '/' }, (response) => {
        let body = '';
        response.on('data', (data) => { body += data; });
        response.on('end', () => console.log(`node is ready: status ${response.statusCode}, ${JSON.parse(body).files} files loaded`));
    });
});
JS
commit program
write_image '{"Env":["PATH=/usr/local/bin:/usr/bin:/bin","NODE_ENV=production"],"Cmd":["node","server.js"],"WorkingDir":"/app"}'
