//! Which servers a repository's host stands for, in order: its mirrors, then itself. Names and URLs only; `transport`
//! speaks to them.

use std::sync::Arc;

use reqwest::Url;

use crate::reference::DOCKER_HUB;
use crate::{Error, HostConfig, Repository};

/// Where Docker Hub's registry really is.
const DOCKER_HUB_SERVER: &str = "registry-1.docker.io";

/// Which of a host's servers to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Servers {
    /// Its mirrors in order, then itself.
    All,
    /// Only itself: for writing, and for what a mirror may have an old copy of.
    Origin,
    /// Only the one that gave the first page of a list.
    Only(Arc<Endpoint>),
}

/// One server that may answer for a host.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `host[:port]`, as credentials are looked up and messages written.
    pub(crate) name: String,
    /// Where `v2/` is appended; ends with a slash, has no query.
    base: Url,
    /// Whether this is a mirror, which is passed over when it fails.
    pub(crate) mirror: bool,
    /// Whether the scheme has to be found out: loopback, not configured.
    pub(crate) guess: bool,
    /// For a mirror, the host it stands for (`?ns=`, as containerd sends it).
    stands_for: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("mirror", &self.mirror)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The host itself, as its configuration (if any) has it.
    pub(crate) fn origin(host: &str, config: Option<&HostConfig>) -> Result<Self, &'static str> {
        let server = if host == DOCKER_HUB { DOCKER_HUB_SERVER } else { host };
        let plain = config.is_some_and(|config| config.plain_http);
        let scheme = if plain { "http" } else { "https" };
        let base = parse_base(&format!("{scheme}://{server}/"))?;
        // A configured loopback host says what it wants; only an unknown one is tried out.
        let configured = config.is_some_and(|c| c.plain_http || c.skip_verify || !c.ca_files.is_empty());
        let guess = !configured && is_loopback(&base);
        Ok(Self { name: host.to_owned(), base, mirror: false, guess, stands_for: None })
    }

    /// A mirror of `host`, written `scheme://host[:port][/path]`.
    pub(crate) fn mirror(url: &str, host: &str) -> Result<Self, &'static str> {
        let base = parse_base(url)?;
        let name = authority(&base);
        Ok(Self { name, base, mirror: true, guess: false, stands_for: Some(host.to_owned()) })
    }

    /// The URL of `path` below `/v2/<name>/`; `plain` where it was found out that the server speaks HTTP only.
    pub(crate) fn url(
        &self,
        repository: &Repository,
        path: &str,
        query: &[(&str, &str)],
        plain: bool,
    ) -> Url {
        let mut url = self.base.clone();
        if plain {
            // Both are special schemes, between which a change is always allowed.
            let _ = url.set_scheme("http");
        }
        url.set_path(&format!("{}v2/{}/{path}", self.base.path(), repository.name));
        if self.stands_for.is_some() || !query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(query);
            if let Some(host) = &self.stands_for {
                pairs.append_pair("ns", host);
            }
        }
        url
    }

    /// Where the API begins, to find out the scheme.
    pub(crate) fn root(&self) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}v2/", self.base.path()));
        url
    }
}

fn parse_base(text: &str) -> Result<Url, &'static str> {
    let mut url = Url::parse(text).map_err(|_| "it must be scheme://host[:port][/path]")?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err("its scheme must be http or https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("user name and password don't belong into it; credentials come from the docker config");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must have no ? and no #");
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// `host`, or `host:port` where the port isn't the scheme's own.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether the URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The configuration of a host, by the name that references use.
pub(crate) fn config_of<'a>(hosts: &'a [HostConfig], host: &str) -> Option<&'a HostConfig> {
    hosts.iter().find(|config| {
        config.host.eq_ignore_ascii_case(host)
            || (host == DOCKER_HUB && matches!(config.host.as_str(), DOCKER_HUB_SERVER | "index.docker.io"))
    })
}

/// The servers to ask for `repository`, in order.
pub(crate) fn of_repository(
    hosts: &[HostConfig],
    repository: &Repository,
    mirrors: bool,
) -> Result<Vec<Endpoint>, Error> {
    let what = || format!("repository {repository}");
    repository.check().map_err(|message| Error::invalid(what(), message))?;
    let config = config_of(hosts, &repository.host);
    let mut endpoints = Vec::new();
    if mirrors {
        for url in config.iter().flat_map(|config| &config.mirrors) {
            let mirror = Endpoint::mirror(url, &repository.host);
            endpoints.push(
                mirror.map_err(|message| Error::invalid(what(), format!("its mirror's URL: {message}")))?,
            );
        }
    }
    let origin =
        Endpoint::origin(&repository.host, config).map_err(|message| Error::invalid(what(), message))?;
    endpoints.push(origin);
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(text: &str) -> Repository {
        text.parse::<crate::Reference>().expect("a reference").repository
    }

    #[test]
    fn urls_are_where_registries_are() {
        let hosts = vec![
            HostConfig { host: "plain.example:5000".into(), plain_http: true, ..HostConfig::default() },
            HostConfig {
                host: "docker.io".into(),
                mirrors: vec!["https://mirror.example/hub".into(), "http://10.0.0.1:5000".into()],
                ..HostConfig::default()
            },
        ];
        for (text, want) in [
            ("ghcr.io/a/b", vec!["https://ghcr.io/v2/a/b/manifests/1"]),
            ("plain.example:5000/a", vec!["http://plain.example:5000/v2/a/manifests/1"]),
            ("[::1]:5000/a", vec!["https://[::1]:5000/v2/a/manifests/1"]),
            (
                "busybox",
                vec![
                    "https://mirror.example/hub/v2/library/busybox/manifests/1?ns=docker.io",
                    "http://10.0.0.1:5000/v2/library/busybox/manifests/1?ns=docker.io",
                    "https://registry-1.docker.io/v2/library/busybox/manifests/1",
                ],
            ),
        ] {
            let repository = repository(text);
            let got: Vec<String> = of_repository(&hosts, &repository, true)
                .expect("valid")
                .iter()
                .map(|e| e.url(&repository, "manifests/1", &[], false).to_string())
                .collect();
            assert_eq!(got, want);
        }
        let pushed = of_repository(&hosts, &repository("busybox"), false).expect("valid");
        assert_eq!(pushed.len(), 1, "mirrors are never written to");
        assert!(!pushed[0].guess);
    }

    #[test]
    fn loopback_is_told_apart() {
        for (host, want) in [
            ("localhost:5000", true),
            ("127.1.2.3", true),
            ("[::1]:5000", true),
            ("a.localhost", true),
            ("localhost.example", false),
            ("10.0.0.1", false),
            ("127.0.0.1.example", false),
        ] {
            let endpoint = Endpoint::origin(host, None).expect("valid");
            assert_eq!(endpoint.guess, want, "{host}");
        }
    }

    #[test]
    fn a_mirror_is_refused_with_the_reason() {
        for (url, want) in [
            ("mirror.example", "scheme"),
            ("ftp://mirror.example", "http"),
            ("https://user:secret@mirror.example", "credentials"),
            ("https://mirror.example/?a=b", "?"),
        ] {
            let error = Endpoint::mirror(url, "docker.io").expect_err(url);
            assert!(error.contains(want), "{error}");
        }
    }
}
