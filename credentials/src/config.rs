//! What config.json says: which helper serves a registry, and what is stored for it. Parsing only.
//!
//! Sources: Docker's `cli/config/configfile` (`auths`, `credsStore`, `credHelpers`; Docker Hub's key is
//! `https://index.docker.io/v1/`) and containers-auth.json(5) (keys with a path below the host; the longest that fits wins).
//!
//! JSON is read as values, not into types: the errors of typed reading quote the text that doesn't fit, and here that
//! may be a password.

use base64::Engine as _;
use serde_json::{Map, Value};
use spandrel_registry::{Credential, Repository};

/// How helpers and old files name Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The file's parts that matter here.
#[derive(Default)]
pub(crate) struct Config {
    auths: Map<String, Value>,
    helpers: Map<String, Value>,
    store: Option<String>,
}

/// The server's name as helpers expect it.
pub(crate) fn helper_server(host: &str) -> &str {
    if host == "docker.io" { DOCKER_HUB_KEY } else { host }
}

impl Config {
    /// Reads the file's text.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default()); // as Docker leaves it behind when a disk was full
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| format!("it is no JSON (line {}, column {})", error.line(), error.column()))?;
        let Value::Object(mut file) = value else { return Err("it is no JSON object".to_owned()) };
        let mut map = |name: &str| match file.remove(name) {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map),
            Some(_) => Err(format!("its {name:?} is no JSON object")),
        };
        let (auths, helpers) = (map("auths")?, map("credHelpers")?);
        let store = match file.remove("credsStore") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => Some(name).filter(|name| !name.is_empty()),
            Some(_) => return Err("its \"credsStore\" is no text".to_owned()),
        };
        Ok(Self { auths, helpers, store })
    }

    /// The helper that serves a repository's host, as its name without `docker-credential-`.
    pub(crate) fn helper(&self, repository: &Repository) -> Option<&str> {
        let own =
            best(&self.helpers, repository, |helper| helper.as_str().is_some_and(|name| !name.is_empty()));
        own.and_then(|(_, helper)| helper.as_str()).or(self.store.as_deref())
    }

    /// What the file itself holds for a repository.
    pub(crate) fn stored(&self, repository: &Repository) -> Result<Option<Credential>, String> {
        // With a helper, Docker leaves an empty entry behind.
        let filled = |entry: &Value| {
            let fields = ["auth", "username", "identitytoken", "registrytoken"];
            fields.iter().any(|name| text(entry, name).is_some())
        };
        let Some((key, entry)) = best(&self.auths, repository, filled) else { return Ok(None) };
        if let Some(token) = text(entry, "registrytoken") {
            return Ok(Some(Credential::RegistryToken(token.to_owned())));
        }
        if let Some(token) = text(entry, "identitytoken") {
            return Ok(Some(Credential::IdentityToken(token.to_owned())));
        }
        if let Some(auth) = text(entry, "auth") {
            let Some((username, password)) = decode(auth) else {
                return Err(format!("the \"auth\" of {key:?} isn't base64 of user:password; log in again"));
            };
            return Ok(Some(Credential::Basic { username, password }));
        }
        let username = text(entry, "username").unwrap_or_default().to_owned();
        let password = text(entry, "password").unwrap_or_default().to_owned();
        Ok(Some(Credential::Basic { username, password }))
    }
}

fn text<'a>(entry: &'a Value, name: &str) -> Option<&'a str> {
    entry.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// `user:password` in base64; some writers leave out the padding or add zero bytes.
fn decode(auth: &str) -> Option<(String, String)> {
    let auth = auth.trim().trim_end_matches('=');
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(auth).ok()?;
    let pair = String::from_utf8(bytes).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// The entry whose key fits the repository best, among those that `usable` takes.
fn best<'a>(
    entries: &'a Map<String, Value>,
    repository: &Repository,
    usable: impl Fn(&Value) -> bool,
) -> Option<(&'a str, &'a Value)> {
    let fitting = entries.iter().filter(|(_, entry)| usable(entry));
    let fitting = fitting.filter_map(|(key, entry)| Some((fit(key, repository)?, key, entry)));
    // Of equally long ones the first in the file: max_by_key would take the last.
    let best = fitting.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map(|(_, key, entry)| (key.as_str(), entry))
}

/// How well a key fits: the length of its path below the host, or `None` when it is for something else.
fn fit(key: &str, repository: &Repository) -> Option<usize> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = bare.unwrap_or(key).split_once('/').unwrap_or((bare.unwrap_or(key), ""));
    if !canonical(host).eq_ignore_ascii_case(canonical(&repository.host)) {
        return None;
    }
    let path = path.trim_end_matches('/');
    // A URL's path is the API's version, and means the whole host (so Docker reads it).
    if bare.is_some() || path.is_empty() || matches!(path, "v1" | "v2") {
        return Some(0);
    }
    let below = repository.name.strip_prefix(path)?;
    (below.is_empty() || below.starts_with('/')).then_some(path.len())
}

/// One name for the many of Docker Hub.
fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(host: &str, name: &str) -> Repository {
        Repository::new(host, name).expect("valid")
    }

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { username: username.into(), password: password.into() })
    }

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes()).expect("valid")
    }

    #[test]
    fn every_kind_of_entry_is_read() {
        for (entry, want) in [
            (r#"{"auth":"dXNlcjpwYTpzcw=="}"#, basic("user", "pa:ss")),
            (r#"{"auth":"dXNlcjpwYTpzcw"}"#, basic("user", "pa:ss")),
            (r#"{"auth":"dXNlcjpwYXNzAAA="}"#, basic("user", "pass")), // zero bytes behind
            (r#"{"username":"u","password":"p"}"#, basic("u", "p")),
            (
                r#"{"identitytoken":"t","auth":"dXNlcjpwYTpzcw=="}"#,
                Some(Credential::IdentityToken("t".into())),
            ),
            (r#"{"registrytoken":"t"}"#, Some(Credential::RegistryToken("t".into()))),
            (r#"{"email":"x@example"}"#, None),
            ("{}", None),
            ("null", None),
        ] {
            let config = config(&format!(r#"{{"auths":{{"ghcr.io":{entry}}}}}"#));
            assert_eq!(config.stored(&repository("ghcr.io", "a/b")).expect("valid"), want, "{entry}");
            assert_eq!(config.stored(&repository("gcr.io", "a/b")).expect("valid"), None);
        }
    }

    #[test]
    fn docker_hub_has_many_names() {
        for key in [
            "https://index.docker.io/v1/",
            "http://index.docker.io",
            "index.docker.io/v1/",
            "index.docker.io",
            "docker.io",
            "registry-1.docker.io",
            "docker.io/library",
        ] {
            let config = config(&format!(r#"{{"auths":{{"{key}":{{"username":"u","password":"p"}}}}}}"#));
            let got = config.stored(&repository("docker.io", "library/busybox")).expect("valid");
            assert_eq!(got, basic("u", "p"), "{key}");
        }
        assert_eq!(helper_server("docker.io"), "https://index.docker.io/v1/");
        assert_eq!(helper_server("ghcr.io"), "ghcr.io");
    }

    #[test]
    fn the_longest_path_wins() {
        let config = config(
            r#"{"auths":{
                "q.io:5000":{"username":"host","password":"p"},
                "https://q.io:5000/v2/":{"username":"url","password":"p"},
                "q.io:5000/team":{"username":"team","password":"p"},
                "q.io:5000/team/app":{"username":"app","password":"p"},
                "q.io:5000/empty":{},
                "q.io":{"username":"other port","password":"p"}}}"#,
        );
        for (name, want) in [
            ("team/app", "app"),
            ("team/app/deep", "app"),
            ("team/application", "team"), // only whole components count
            ("team/b", "team"),
            ("teams/b", "host"),
            ("x", "host"),
            ("empty/x", "host"), // an empty entry says nothing
        ] {
            let got = config.stored(&repository("q.io:5000", name)).expect("valid");
            assert_eq!(got, basic(want, "p"), "{name}");
        }
    }

    #[test]
    fn helpers_are_chosen_by_host() {
        let config = config(
            r#"{"credsStore":"desktop","credHelpers":{"1.dkr.ecr.eu-west-1.amazonaws.com":"ecr-login","gcr.io":""}}"#,
        );
        for (host, want) in [("1.dkr.ecr.eu-west-1.amazonaws.com", "ecr-login"), ("gcr.io", "desktop")] {
            assert_eq!(config.helper(&repository(host, "a")), Some(want), "{host}");
        }
        assert_eq!(Config::default().helper(&repository("gcr.io", "a")), None);
    }

    #[test]
    fn errors_name_the_place_and_no_secret() {
        for (text, want) in [
            ("{\"auths\":{\"a\":{\"auth\":\"hunter2\"", "line 1"),
            ("[]", "no JSON object"),
            (r#"{"auths":"hunter2"}"#, "\"auths\""),
            (r#"{"credHelpers":["hunter2"]}"#, "\"credHelpers\""),
            (r#"{"credsStore":{"hunter2":1}}"#, "\"credsStore\""),
        ] {
            let Err(error) = Config::parse(text.as_bytes()) else { panic!("{text} is invalid") };
            assert!(error.contains(want) && !error.contains("hunter2"), "{error}");
        }
        for auth in ["hunter2!", "aHVudGVyMg=="] {
            // no base64; no colon
            let config = config(&format!(r#"{{"auths":{{"ghcr.io":{{"auth":"{auth}"}}}}}}"#));
            let error = config.stored(&repository("ghcr.io", "a")).expect_err("invalid");
            assert!(
                error.contains("ghcr.io") && !error.contains(auth) && !error.contains("hunter2"),
                "{error}"
            );
        }
        assert!(Config::parse(b"").is_ok() && Config::parse(b" \n").is_ok());
    }
}
