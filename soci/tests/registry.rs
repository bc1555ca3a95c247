//! Building, pushing and finding over registries: the real docker-registry, and one that fails as it is told.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use std::sync::{Arc, Mutex};

use spandrel_fixtures::image::{Image as Fixture, ImageBuilder};
use spandrel_fixtures::layer::{Entry, Layer, TarBuilder};
use spandrel_fixtures::peers::DockerRegistry;
use spandrel_fixtures::random::Random;
use spandrel_fixtures::scripted::{Fault, Kind, Rule, ScriptedRegistry};
use spandrel_registry::{Anonymous, Client, ClientOptions, Digest, Repository};
use spandrel_soci::Error;
use spandrel_soci::build::{BuildOptions, BuiltIndex, Nothing, build};
use spandrel_soci::find::{FindOptions, FoundBy, find, ztoc_bytes};
use spandrel_soci::image::{Image, resolve};
use spandrel_soci::platform::Platforms;
use spandrel_soci::push::{DEFAULT_PARALLEL, push};
use spandrel_soci::source::RegistrySource;

fn fixture(seed: u64) -> Fixture {
    let layer = |seed| {
        let content = Random::new(seed).content(300_000, 30);
        Layer::gzip(&TarBuilder::new().with(Entry::file("data", content)).finish())
    };
    ImageBuilder::new().layer(layer(seed)).layer(layer(seed + 1)).layer(layer(seed + 2)).build()
}

fn source(host: &str, name: &str) -> RegistrySource {
    let options = ClientOptions { max_retries: 1, ..ClientOptions::default() };
    let client = Client::new(options, Arc::new(Anonymous)).unwrap();
    RegistrySource::new(client, Repository::new(host, name).unwrap())
}

async fn built(source: &RegistrySource) -> (Image, BuiltIndex) {
    let image = resolve(source, "1", &Platforms::Default).await.unwrap().images.remove(0);
    let options = BuildOptions { span_size: 65536, min_layer_size: 0, ..BuildOptions::default() };
    let built = build(Arc::new(source.clone()), &image, &options, &Nothing, Arc::new(|_| {})).await.unwrap();
    (image, built)
}

async fn push_to(source: &RegistrySource, built: &BuiltIndex) -> Result<Vec<Digest>, Error> {
    let pushed = Mutex::new(Vec::new());
    let tell = |digest: &Digest, _: u64| pushed.lock().unwrap().push(digest.clone());
    push(source.client(), source.repository(), built, DEFAULT_PARALLEL, &tell).await?;
    Ok(pushed.into_inner().unwrap())
}

async fn found(source: &RegistrySource, image: &Image, options: &FindOptions) -> Option<(FoundBy, Digest)> {
    let (client, repository) = (source.client(), source.repository());
    let found = find(client, repository, image.digest(), &image.fetched.bytes, options).await.unwrap();
    found.map(|found| (found.by, found.digest))
}

/// What was pushed is found, and its zTOCs are what was built.
async fn there_and_back(source: RegistrySource) {
    let (image, index) = built(&source).await;
    let options = FindOptions::default();
    assert_eq!(found(&source, &image, &options).await, None);
    assert_eq!(push_to(&source, &index).await.unwrap().len(), 4); // three zTOCs and the configuration
    let want = Some((FoundBy::Referrer, index.digest.clone()));
    assert_eq!(found(&source, &image, &options).await, want);
    assert_eq!(found(&source, &image, &FindOptions { v1: false, ..options.clone() }).await, None);
    let label = FindOptions { label: Some(index.digest.clone()), v1: false, v2: false };
    assert_eq!(found(&source, &image, &label).await, Some((FoundBy::Label, index.digest.clone())));
    for entry in &index.index.layers {
        assert_eq!(ztoc_bytes(&source, &entry.ztoc).await.unwrap(), index.ztocs[&entry.ztoc.digest]);
    }
    // Pushed again, it is still one.
    push_to(&source, &index).await.unwrap();
    let referrers = source
        .client()
        .referrers(source.repository(), image.digest(), index.index.version.artifact_type())
        .await;
    assert_eq!(referrers.unwrap().len(), 1);
}

#[tokio::test]
async fn an_index_goes_to_docker_registry_and_comes_back() {
    let Some(registry) = DockerRegistry::plain() else { return };
    fixture(1).push(&registry.client(), "app", "1");
    there_and_back(source(&registry.host(), "app")).await;
}

#[tokio::test]
async fn an_index_goes_to_a_registry_with_the_referrers_api_and_comes_back() {
    let registry = ScriptedRegistry::plain();
    fixture(1).put(&registry, "app", "1");
    there_and_back(source(&registry.host(), "app")).await;
}

#[tokio::test]
async fn the_manifest_goes_last_and_not_at_all_when_a_ztoc_is_refused() {
    let registry = ScriptedRegistry::plain();
    fixture(4).put(&registry, "app", "1");
    let source = source(&registry.host(), "app");
    let (_, index) = built(&source).await;
    registry.rule(Rule::new(Kind::Upload, Fault::status(403)).from(3));
    registry.reset_counts();
    let error = push_to(&source, &index).await.unwrap_err();
    assert!(matches!(error, Error::Registry(_)), "{error}");
    assert_eq!(registry.count(Kind::ManifestPush), 0);

    registry.clear_rules();
    registry.reset_counts();
    push_to(&source, &index).await.unwrap();
    let log = registry.log();
    let manifest = log.iter().position(|seen| seen.kind == Kind::ManifestPush).unwrap();
    assert!(log[manifest..].iter().all(|seen| seen.kind != Kind::Upload));
    assert!(log[..manifest].iter().any(|seen| seen.kind == Kind::Upload));
    assert_eq!(registry.manifest("app", index.digest.as_str()).unwrap().bytes, index.bytes);
}

#[tokio::test]
async fn an_index_of_an_image_that_isn_t_there_is_not_pushed() {
    let registry = ScriptedRegistry::plain();
    fixture(7).put(&registry, "app", "1");
    fixture(10).put(&registry, "other", "1");
    let (image, index) = built(&source(&registry.host(), "app")).await;
    registry.reset_counts();
    let error = push_to(&source(&registry.host(), "other"), &index).await.unwrap_err().to_string();
    assert!(error.contains(image.digest().as_str()) && error.contains("push the image first"), "{error}");
    assert_eq!(registry.count(Kind::Upload), 0);
}

#[tokio::test]
async fn a_layer_that_breaks_off_again_and_again_names_itself() {
    let registry = ScriptedRegistry::plain();
    let fixture = fixture(13);
    fixture.put(&registry, "app", "1");
    let layer = &fixture.layers[1].digest;
    registry.rule(Rule::new(Kind::BlobRange, Fault::ResetAfter(0)).digest(layer));
    let source = source(&registry.host(), "app");
    let image = resolve(&source, "1", &Platforms::Default).await.unwrap().images.remove(0);
    let options = BuildOptions { min_layer_size: 0, ..BuildOptions::default() };
    let error = build(Arc::new(source), &image, &options, &Nothing, Arc::new(|_| {})).await.unwrap_err();
    assert!(error.to_string().contains(layer.as_str()), "{error}");
}
