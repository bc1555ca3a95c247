#!/usr/bin/env bash
# about: OpenJDK 17: an HTTP service with Jackson, commons-lang and logback; asks itself once
# ready: java is ready
# needs: debian
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
step java
with_proc
debian_packages openjdk-17-jre-headless ca-certificates-java
commit java

step libraries
debian_packages libjackson2-databind-java libcommons-lang3-java liblogback-java
commit libraries

# The compiler is in no layer, as in a build of several stages.
step compiler
with_proc
debian_packages openjdk-17-jdk-headless
mkdir -p "$WORK/merged/build/service"
cat >"$WORK/merged/build/service/Service.java" <<'JAVA'
package service;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Map;
import java.util.concurrent.Executors;
import org.apache.commons.lang3.StringUtils;
import org.apache.commons.lang3.SystemUtils;
import org.slf4j.LoggerFactory;

/** Serves JSON on a port that the system chooses, and answers itself once. */
public final class Service {
    public record Answer(String greeting, Map<String, String> versions) {}

    public static void main(String[] arguments) throws Exception {
        var log = LoggerFactory.getLogger(Service.class);
        var json = new ObjectMapper();
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", exchange -> {
            var answer = new Answer(StringUtils.capitalize("hello"), Map.of("java", SystemUtils.JAVA_VERSION));
            var body = json.writeValueAsBytes(answer);
            exchange.getResponseHeaders().add("Content-Type", "application/json");
            exchange.sendResponseHeaders(200, body.length);
            try (var out = exchange.getResponseBody()) {
                out.write(body);
            }
        });
        server.start();
        var address = URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/");
        var response = HttpClient.newHttpClient().send(HttpRequest.newBuilder(address).build(), HttpResponse.BodyHandlers.ofString());
        log.info("answered {}", json.readTree(response.body()));
        System.out.println("java is ready: status " + response.statusCode());
        System.out.flush();
    }
}
JAVA
chroot "$WORK/merged" sh -ec 'cd /build && javac -cp "/usr/share/java/*" -d classes service/Service.java &&
    jar --create --date=2023-06-10T00:00:00Z --file service.jar --main-class service.Service -C classes .'
mv "$WORK/merged/build/service.jar" "$WORK/service.jar"
abandon compiler

step program
mkdir "$WORK/merged/app"
mv "$WORK/service.jar" "$WORK/merged/app/service.jar"
commit program
write_image '{"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"Cmd":["java","-cp","/app/service.jar:/usr/share/java/*","service.Service"],"WorkingDir":"/app"}'
