//! ECR's API as moto has it, which others made from AWS's own description of it. Its tokens ended in 2015.

mod common;

use std::sync::Arc;

use common::{PART, Player};
use spandrel_credentials::{Credentials, Options};
use spandrel_fixtures::aws::{HOST, Identity, ScriptedAws};
use spandrel_fixtures::image::ImageBuilder;
use spandrel_fixtures::layer::{Layer, TarBuilder};
use spandrel_fixtures::peers::{Auth, DockerRegistry, Moto, Options as RegistryOptions};
use spandrel_registry::{Client, ClientOptions, Credential, CredentialSource as _, HostConfig, Repository};

#[test]
fn a_token_of_moto_opens_a_registry_and_is_not_kept() {
    if std::env::var(PART).is_ok() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let credentials = Credentials::new(Options::default());
            let app = Repository::new(HOST, "team/app").expect("valid");
            for _ in 0..3 {
                let got = credentials.credential(&app).await.unwrap_or_else(|error| panic!("{error}"));
                let (username, password) = (Moto::USER.to_owned(), Moto::PASSWORD.to_owned());
                assert_eq!(got, Some(Credential::Basic { username, password }));
            }
            let host = HostConfig { host: HOST.to_owned(), plain_http: true, ..HostConfig::default() };
            let options = ClientOptions { hosts: vec![host], ..ClientOptions::default() };
            let client = Client::new(options, Arc::clone(&credentials) as _).expect("a client");
            for _ in 0..5 {
                client.manifest(&app, "1").await.unwrap_or_else(|error| panic!("{error}"));
            }
        });
        return;
    }
    let Some(moto) = Moto::start() else { return };
    let auth = Auth::BasicAs(Moto::USER, Moto::PASSWORD);
    let Some(registry) = DockerRegistry::start(RegistryOptions { auth, ..RegistryOptions::default() }) else {
        return;
    };
    let image = ImageBuilder::new().layer(Layer::gzip(&TarBuilder::new().finish())).build();
    image.push(&registry.client(), "team/app", "1");
    let door = ScriptedAws::start(registry.addr());
    door.let_upstream_judge(true);
    let player = Player::start("a_token_of_moto_opens_a_registry_and_is_not_kept", "child", |command| {
        door.introduce(command, Identity::Environment);
        command.env("AWS_ENDPOINT_URL", moto.url());
    });
    player.end();
    // Three questions, and one for all requests of the client, which keeps what it got for some minutes.
    assert_eq!(moto.requests(), 4);
    assert!(door.counts().is_empty(), "{:?}", door.counts());
}
