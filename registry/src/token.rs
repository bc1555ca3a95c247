//! One request to a token service: GET with or without user name and password, POST for an identity token.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use http::{Method, StatusCode, header};
use reqwest::{Request, Url};

use crate::auth::{BearerAsk, sensitive};
use crate::failure::{Failure, registry_message, shown};
use crate::limits::{MAX_ERROR_BODY, MAX_TOKEN_RESPONSE};
use crate::transport::{Pool, Transport, read_small};
use crate::{Credential, ErrorKind};

/// The name by which we introduce ourselves to a token service.
const CLIENT_ID: &str = "spandrel";

/// A token as the service gave it.
pub(crate) struct Token {
    pub(crate) token: String,
    /// How long it can be used; `None` where the service doesn't say.
    pub(crate) life: Option<Duration>,
}

/// Asks for a token.
pub(crate) async fn get(
    transport: &Transport,
    now: SystemTime,
    ask: &BearerAsk,
    scopes: &[String],
    credential: Option<Credential>,
) -> Result<Token, Failure> {
    let service = shown(&ask.realm);
    let named = |mut failure: Failure| {
        failure.message = format!("its token service {service} {}", failure.message);
        failure
    };
    let (request, secrets) = request(ask, scopes, credential)?;
    let response = transport.send(Pool::Api, request).await.map_err(named)?;
    let status = response.status();
    let headers = response.headers().clone();
    if status != StatusCode::OK {
        let body = read_small(response, MAX_ERROR_BODY).await.unwrap_or_default();
        let detail = registry_message(&body, &secrets);
        let mut failure = Failure::of_status(status, &headers, now, &detail);
        // It answers 400 and 404 for credentials that it doesn't like, too; nothing of it says that an image is missing.
        if status.is_client_error() && failure.kind != ErrorKind::RateLimited {
            failure.kind = ErrorKind::Unauthorized;
        }
        return Err(named(failure));
    }
    let body = read_small(response, MAX_TOKEN_RESPONSE).await.map_err(named)?;
    parse(&body).ok_or_else(|| named(Failure::lasting(ErrorKind::Unauthorized, "answered with no token")))
}

/// The request, and what of it must never be printed.
fn request(
    ask: &BearerAsk,
    scopes: &[String],
    credential: Option<Credential>,
) -> Result<(Request, Vec<String>), Failure> {
    let mut url = ask.realm.clone();
    if let Some(Credential::IdentityToken(token)) = credential {
        let mut form =
            Url::parse("http://form/").map_err(|_| Failure::passing("a constant URL didn't parse"))?;
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", ask.service.as_deref().unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", &token);
        let mut request = Request::new(Method::POST, url);
        let form_type = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form_type);
        *request.body_mut() = Some(form.query().unwrap_or_default().to_owned().into());
        return Ok((request, vec![token]));
    }
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &ask.service {
            query.append_pair("service", service);
        }
        for scope in scopes {
            query.append_pair("scope", scope);
        }
        if let Some(Credential::Basic { username, .. }) = &credential {
            query.append_pair("account", username);
        }
    }
    let mut request = Request::new(Method::GET, url);
    let mut secrets = Vec::new();
    if let Some(Credential::Basic { username, password }) = credential {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        request.headers_mut().insert(header::AUTHORIZATION, sensitive(&format!("Basic {pair}"))?);
        secrets = vec![pair, password];
    }
    Ok((request, secrets))
}

/// `token` or `access_token`, and `expires_in` in seconds; all else is left aside.
fn parse(body: &[u8]) -> Option<Token> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |key: &str| value.get(key).and_then(|v| v.as_str()).filter(|text| !text.is_empty());
    let token = text("token").or_else(|| text("access_token"))?.to_owned();
    let life = value.get("expires_in").and_then(serde_json::Value::as_u64);
    // A hundred years is as good as for ever, and can be added to any time.
    let life = life.map(|seconds| Duration::from_secs(seconds.min(100 * 366 * 24 * 3600)));
    Some(Token { token, life })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_token_services() {
        for (body, want) in [
            (r#"{"token":"t","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#, Some(("t", Some(300)))),
            (r#"{"access_token":"a"}"#, Some(("a", None))),
            (r#"{"token":"","access_token":"a","expires_in":"soon"}"#, Some(("a", None))),
            (r#"{"token":"t","expires_in":-5}"#, Some(("t", None))),
            (r#"{"token":"t","expires_in":18446744073709551615}"#, Some(("t", Some(100 * 366 * 24 * 3600)))),
            (r#"{"token":5}"#, None),
            ("[]", None),
            ("", None),
        ] {
            let got = parse(body.as_bytes());
            let got = got.as_ref().map(|t| (t.token.as_str(), t.life.map(|life| life.as_secs())));
            assert_eq!(got, want, "{body}");
        }
    }

    #[test]
    fn an_identity_token_goes_into_the_body_only() {
        let ask = BearerAsk {
            realm: "https://auth.example/token?x=1".parse().expect("a URL"),
            service: Some("registry".into()),
            scopes: Vec::new(),
        };
        let secret = "s3cr&t".to_owned();
        let (request, _) =
            request(&ask, &["repository:a:pull".into()], Some(Credential::IdentityToken(secret)))
                .expect("a request");
        assert_eq!((request.method(), request.url().query()), (&Method::POST, Some("x=1")));
        let body = request.body().and_then(|b| b.as_bytes()).expect("a body");
        let body = String::from_utf8(body.to_vec()).expect("text");
        assert!(
            body.contains("refresh_token=s3cr%26t") && body.contains("scope=repository%3Aa%3Apull"),
            "{body}"
        );
        assert!(!format!("{request:?}").contains("s3cr"));
    }
}
