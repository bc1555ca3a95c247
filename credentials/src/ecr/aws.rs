//! Tokens from ECR's API, by the AWS SDK, with the AWS credentials that the SDK finds.
//!
//! The sources are the SDK's own in its order (environment, profile, web identity, container, instance), put together here
//! so that it is known which of them served, and so that nothing that is asked on this machine goes through a proxy: one
//! elsewhere would answer with credentials of its own. All of it is made when the first token is wanted, and once; after
//! a failure anew, since the SDK reads a profile once and somebody may have put it right.
//!
//! The SDK logs whole answers at its finest level, tokens among them: it isn't let into the log at all. What went wrong is
//! in its errors, of which only what can hold no secret is passed on.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::identity::IdentityCache;
use aws_config::imds;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_ecr::Client;
use aws_sdk_ecr::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_ecr::operation::get_authorization_token::{
    GetAuthorizationTokenError, GetAuthorizationTokenOutput,
};
use aws_smithy_http_client::tls;
use base64::Engine as _;
use spandrel_registry::Credential;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber as _;

use super::EcrHost;
use super::tokens::{Issued, Issuer};
use crate::limits::{
    API_TIMEOUT, API_TRIES, API_TRY_TIMEOUT, IDENTITY_TIMEOUT, MAX_AWS_MESSAGE, METADATA_DEADLINE,
    METADATA_TIMEOUT,
};

/// ECR's API by the AWS SDK.
#[derive(Default)]
pub(crate) struct Aws {
    loaded: tokio::sync::Mutex<Option<Arc<Loaded>>>,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The SDK's own would show the environment, with keys and all.
        f.debug_struct("Aws").finish_non_exhaustive()
    }
}

/// The SDK, set up as the environment says.
struct Loaded {
    config: SdkConfig,
    /// Which source gave the AWS credentials last.
    by: Arc<Mutex<&'static str>>,
    /// Clients by what tells their endpoints apart.
    clients: Mutex<HashMap<(String, bool, bool), Client>>,
}

#[async_trait]
impl Issuer for Aws {
    async fn issue(&self, registry: &EcrHost) -> Result<Issued, String> {
        let loaded = {
            let mut kept = self.loaded.lock().await;
            match &*kept {
                Some(loaded) => Arc::clone(loaded),
                None => {
                    let new = Arc::new(Loaded::new(registry).with_subscriber(Dispatch::none()).await);
                    Arc::clone(kept.insert(new))
                }
            }
        };
        let call = loaded.client(registry).get_authorization_token().send();
        match call.with_subscriber(Dispatch::none()).await {
            Ok(output) => {
                let by = *loaded.by.lock().unwrap_or_else(PoisonError::into_inner);
                read(&output, by).map_err(|what| format!("ECR's API in {}: {what}", registry.region))
            }
            Err(error) => {
                let mut kept = self.loaded.lock().await;
                if kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &loaded)) {
                    *kept = None;
                }
                Err(explain(registry, &error))
            }
        }
    }
}

impl Loaded {
    async fn new(registry: &EcrHost) -> Self {
        // STS may be there in the node's own region only; where that isn't said, the registry's is as good as any.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::new(registry.region.clone()))
            .region()
            .await;
        let by = Arc::new(Mutex::new("nowhere"));
        let identity = IdentityCache::lazy().load_timeout(IDENTITY_TIMEOUT).build();
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(API_TRY_TIMEOUT)
            .operation_timeout(API_TIMEOUT)
            .build();
        let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(region.clone())
            .credentials_provider(chain(region, &by))
            .identity_cache(identity)
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_max_attempts(API_TRIES))
            .load()
            .await;
        Self { config, by, clients: Mutex::default() }
    }

    fn client(&self, registry: &EcrHost) -> Client {
        let key = (registry.region.clone(), registry.fips, registry.dual_stack);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let mut config = aws_sdk_ecr::config::Builder::from(&self.config);
            config.set_region(Some(Region::new(registry.region.clone())));
            // The environment may want these for everything; a registry's name only adds to that.
            if registry.fips {
                config.set_use_fips(Some(true));
            }
            if registry.dual_stack {
                config.set_use_dual_stack(Some(true));
            }
            Client::from_conf(config.build())
        };
        clients.entry(key).or_insert_with(new).clone()
    }
}

/// The SDK's sources in the order of its default chain.
fn chain(region: Option<Region>, by: &Arc<Mutex<&'static str>>) -> CredentialsProviderChain {
    let config = ProviderConfig::without_region().with_region(region);
    let direct = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .build_https();
    let here = config.clone().with_http_client(direct);
    let metadata = imds::Client::builder()
        .configure(&here)
        .connect_timeout(METADATA_TIMEOUT)
        .read_timeout(METADATA_TIMEOUT)
        // Later than both, so that it is always one of them that says: there is no such service here.
        .operation_attempt_timeout(METADATA_TIMEOUT * 3)
        .operation_timeout(METADATA_DEADLINE)
        .build();
    let by = |name| Named { name, by: Arc::clone(by) };
    CredentialsProviderChain::first_try(
        "Environment",
        by("environment").of(EnvironmentVariableCredentialsProvider::new()),
    )
    .or_else(
        "Profile",
        by("profile").of(ProfileFileCredentialsProvider::builder().configure(&config).build()),
    )
    .or_else(
        "WebIdentityToken",
        by("web-identity").of(WebIdentityTokenCredentialsProvider::builder().configure(&config).build()),
    )
    .or_else("EcsContainer", by("container").of(EcsCredentialsProvider::builder().configure(&here).build()))
    .or_else(
        "Ec2InstanceMetadata",
        by("instance").of(ImdsCredentialsProvider::builder().configure(&here).imds_client(metadata).build()),
    )
}

/// What is noted when a source has served.
#[derive(Debug, Clone)]
struct Named {
    name: &'static str,
    by: Arc<Mutex<&'static str>>,
}

impl Named {
    fn of<P: ProvideCredentials>(self, provider: P) -> Noted<P> {
        Noted { provider, named: self }
    }
}

/// A source that notes that it has served.
#[derive(Debug)]
struct Noted<P> {
    provider: P,
    named: Named,
}

impl<P: ProvideCredentials> ProvideCredentials for Noted<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let credentials = self.provider.provide_credentials().await?;
            *self.named.by.lock().unwrap_or_else(PoisonError::into_inner) = self.named.name;
            Ok(credentials)
        })
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.provider.fallback_on_interrupt()
    }
}

/// Reads what ECR answered. Its text is a secret: no error quotes it.
fn read(output: &GetAuthorizationTokenOutput, by: &'static str) -> Result<Issued, &'static str> {
    let data = output.authorization_data().first().ok_or("its answer has no token")?;
    let token = data.authorization_token().ok_or("its answer has no token")?;
    let pair =
        base64::engine::general_purpose::STANDARD.decode(token).map_err(|_| "its token isn't base64")?;
    let pair = String::from_utf8(pair).map_err(|_| "its token isn't text")?;
    let (username, password) = pair.split_once(':').ok_or("its token isn't user:password")?;
    let credential = Credential::Basic { username: username.to_owned(), password: password.to_owned() };
    let ends = data.expires_at().and_then(|ends| (*ends).try_into().ok());
    Ok(Issued { credential, ends, by })
}

/// What went wrong, and what to do.
fn explain(registry: &EcrHost, error: &SdkError<GetAuthorizationTokenError>) -> String {
    let region = &registry.region;
    if let Some(refusal) = error.as_service_error() {
        let code = refusal.code().unwrap_or("an error without a code");
        // Behind the first line ECR repeats a request that it finds wrongly signed, with its session token.
        let message = refusal.message().unwrap_or_default().lines().next().unwrap_or_default();
        return format!(
            "ECR's API in {region} answered {code}: {}. Check the AWS credentials and that their role may do ecr:GetAuthorizationToken",
            shortened(message.trim_end_matches('.'))
        );
    }
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause);
        next = cause.source();
    }
    let lacking = causes.iter().find_map(|cause| cause.downcast_ref::<CredentialsError>());
    let what = match lacking {
        Some(CredentialsError::CredentialsNotLoaded(_)) => {
            "there are no AWS credentials in the environment, a profile, a web identity, a container's or an instance's metadata"
                .to_owned()
        }
        Some(_) => format!("the AWS credentials can't be had: {}", said(&causes)),
        None => {
            let said = if causes.is_empty() { error.to_string() } else { said(&causes) };
            return format!(
                "ECR's API in {region} can't be asked for a token: {said}. Check the network to it"
            );
        }
    };
    format!(
        "{what}. Give this machine a role that may do ecr:GetAuthorizationToken, or put a credential for this registry into docker's config"
    )
}

/// What a chain of errors says, in one line.
fn said(causes: &[&(dyn std::error::Error + 'static)]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes {
        // Behind its first line AWS repeats a wrongly signed request, token and all; some errors quote what they hold.
        let text = cause.to_string();
        let text = text.lines().next().unwrap_or_default().split("\\n").next().unwrap_or_default().to_owned();
        // Some repeat what is behind them, some say only what kind of error is.
        let repeats = texts.last().is_some_and(|last| last.contains(&text));
        if !text.is_empty() && text != "other" && !repeats {
            texts.push(text);
        }
    }
    shortened(&texts.join(": "))
}

/// One short line.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_AWS_MESSAGE).collect()
}
