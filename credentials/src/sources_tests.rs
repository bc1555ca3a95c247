//! Tests of the sources' order, of what is told about them, and that it is no secret.

use super::*;

fn repository(host: &str) -> Repository {
    Repository::new(host, "team/app").expect("valid")
}

fn basic(username: &str, password: &str) -> Option<Credential> {
    Some(Credential::Basic { username: username.into(), password: password.into() })
}

/// A source that answers what it is told to, and another one after a refusal, where it has another.
#[derive(Debug)]
struct Fixed {
    origin: Origin,
    answer: Mutex<Result<Option<Credential>, CredentialError>>,
    after_refusal: Option<Credential>,
}

impl Fixed {
    fn new(origin: Origin, answer: Result<Option<Credential>, CredentialError>) -> Arc<Self> {
        Arc::new(Self { origin, answer: Mutex::new(answer), after_refusal: None })
    }

    fn set(&self, answer: Option<Credential>) {
        *lock(&self.answer) = Ok(answer);
    }
}

#[async_trait]
impl Source for Fixed {
    fn origin(&self) -> Origin {
        self.origin
    }

    async fn find(
        &self,
        _: &Repository,
        refused: Option<&Credential>,
    ) -> Result<Option<Found>, CredentialError> {
        let answer = lock(&self.answer).clone()?;
        let answer = match (&self.after_refusal, refused, &answer) {
            (Some(other), Some(refused), Some(had)) if refused == had => Some(other.clone()),
            _ => answer,
        };
        let found =
            |credential| Found { credential, origin: self.origin, detail: format!("{:?}", self.origin) };
        Ok(answer.map(found))
    }
}

/// Counts what it is told.
#[derive(Debug, Default)]
struct Counted(Mutex<Vec<(&'static str, &'static str)>>);

impl Observer for Counted {
    fn asked(&self, source: &'static str, outcome: &'static str) {
        lock(&self.0).push((source, outcome));
    }

    fn token(&self, _: &'static str, _: bool) {}
}

fn all(sources: &[&Arc<Fixed>]) -> (Credentials, Arc<Counted>) {
    let counted = Arc::new(Counted::default());
    let sources = sources.iter().map(|source| Arc::clone(source) as Arc<dyn Source>).collect();
    (Credentials::of(sources, Some(Arc::clone(&counted) as _)), counted)
}

#[tokio::test]
async fn the_first_that_has_one_decides_and_failures_are_not_lost() {
    let broken = || CredentialError { host: "ghcr.io".into(), message: "broken".into() };
    let none = Fixed::new(Origin::CommandLine, Ok(None));
    let fails = Fixed::new(Origin::DockerConfig, Err(broken()));
    let has = Fixed::new(Origin::Ecr, Ok(basic("u", "p")));
    let other = Fixed::new(Origin::CredentialHelper, Ok(basic("x", "y")));
    for (sources, want, counted) in [
        (&[][..], Ok(None), ("none", "none")),
        (&[&none, &has, &other, &fails], Ok(basic("u", "p")), ("ecr", "found")),
        (&[&fails, &other, &has], Ok(basic("x", "y")), ("credential-helper", "found")),
        (&[&none, &fails, &none], Err(broken()), ("docker-config", "failed")),
        (&[&none, &none], Ok(None), ("none", "none")),
    ] {
        let (credentials, counts) = all(sources);
        assert_eq!(credentials.credential(&repository("ghcr.io")).await, want);
        assert_eq!(*lock(&counts.0), [counted]);
    }
}

#[tokio::test]
async fn what_a_registry_has_refused_gives_way_until_it_changes() {
    let docker = Fixed::new(Origin::DockerConfig, Ok(basic("AWS", "of yesterday")));
    let ecr = Arc::new(Fixed {
        origin: Origin::Ecr,
        answer: Mutex::new(Ok(basic("AWS", "one"))),
        after_refusal: basic("AWS", "two"),
    });
    let (credentials, _) = all(&[&docker, &ecr]);
    let app = repository("1.example");
    let first = credentials.credential(&app).await.expect("one").expect("one");
    assert_eq!(Some(first.clone()), basic("AWS", "of yesterday"));
    let second = credentials.after_refusal(&app, &first).await.expect("one").expect("one");
    assert_eq!(Some(second.clone()), basic("AWS", "one"), "the next source's, which nobody has refused");
    assert_eq!(credentials.credential(&app).await, Ok(Some(second.clone())), "without another refusal");
    assert_eq!(credentials.after_refusal(&app, &second).await, Ok(basic("AWS", "two")));
    // Hosts are apart.
    assert_eq!(credentials.credential(&repository("2.example")).await, Ok(Some(first)));
    docker.set(basic("AWS", "of today"));
    assert_eq!(credentials.credential(&app).await, Ok(basic("AWS", "of today")));
}

#[tokio::test]
async fn where_nobody_has_a_better_one_the_refusal_stands() {
    let docker = Fixed::new(Origin::DockerConfig, Ok(basic("alice", "wrong")));
    let fails = Fixed::new(
        Origin::Ecr,
        Err(CredentialError { host: "1.example".into(), message: "no AWS credentials".into() }),
    );
    let app = repository("1.example");
    for sources in [&[&docker][..], &[&docker, &fails], &[&fails, &docker]] {
        let (credentials, _) = all(sources);
        let first = credentials.credential(&app).await.expect("one").expect("one");
        assert_eq!(credentials.after_refusal(&app, &first).await, Ok(Some(first.clone())));
        assert_eq!(credentials.credential(&app).await, Ok(Some(first)));
    }
}

#[tokio::test]
async fn every_source_is_explained_in_order() {
    let given = Given { host: "a.example".into(), credential: basic("u", "hunter2").expect("one") };
    let docker = DockerConfig::new("/nowhere/at/all/config.json");
    let options = Options { given: Some(given), docker: Some(docker), observer: None };
    let credentials = Credentials::new(options);
    let steps = credentials.explain(&repository("a.example")).await;
    let step = |origin, outcome| Step { origin, outcome: Ok(outcome) };
    assert_eq!(
        steps,
        [
            step(Origin::CommandLine, Some("a flag".to_owned())),
            step(Origin::DockerConfig, None),
            step(Origin::Ecr, None),
        ]
    );
    assert!(!format!("{credentials:?} {steps:?}").contains("hunter2"));
    // The flag was for one host.
    assert_eq!(credentials.explain(&repository("b.example")).await[0], step(Origin::CommandLine, None));
    assert_eq!(credentials.credential(&repository("public.ecr.aws")).await, Ok(None), "tokens for anybody");
}

#[tokio::test]
async fn memory_of_hosts_is_bounded() {
    let has = Fixed::new(Origin::DockerConfig, Ok(basic("u", "p")));
    let (credentials, _) = all(&[&has]);
    for number in 0..3 * MAX_HOSTS {
        let app = repository(&format!("h{number}.example"));
        let found = credentials.credential(&app).await.expect("one").expect("one");
        credentials.after_refusal(&app, &found).await.expect("the same");
        assert!(lock(&credentials.hosts).len() <= MAX_HOSTS);
    }
}

#[tokio::test]
async fn no_debug_shows_a_secret() {
    let secret = || basic("u", "hunter2").expect("one");
    let found = Found { credential: secret(), origin: Origin::Ecr, detail: "d".into() };
    let given = Given { host: "h".into(), credential: secret() };
    let options = Options { given: Some(given.clone()), docker: None, observer: None };
    let docker = Fixed::new(Origin::DockerConfig, Ok(Some(secret())));
    let (credentials, _) = all(&[&docker]);
    let app = repository("h");
    credentials.credential(&app).await.expect("one");
    credentials.after_refusal(&app, &secret()).await.expect("one");
    for text in
        [format!("{found:?}"), format!("{given:?}"), format!("{options:?}"), format!("{credentials:?}")]
    {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
