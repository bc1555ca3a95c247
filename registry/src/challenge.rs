//! `WWW-Authenticate` (RFC 9110, 11.6.1): what a registry says it wants to see. Parsing only; `auth` acts on it.
//!
//! The header comes from whoever answers, so it is hostile: lengths and counts are bounded, and what makes no sense ends
//! the parse with what was understood so far.

use crate::limits::{MAX_CHALLENGES, MAX_HEADER, MAX_PARAMS};

/// One challenge: a scheme and its parameters, in order. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// `bearer`, `basic`, …, in lower case.
    pub(crate) scheme: String,
    /// Parameters, names in lower case, quotes and escapes removed.
    pub(crate) params: Vec<(String, String)>,
}

impl Challenge {
    /// The first parameter of this name.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of one header value. A server may also send several headers: parse each.
pub(crate) fn parse(value: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    if value.len() > MAX_HEADER {
        return challenges;
    }
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((token, behind)) = token(rest) else { return challenges };
        let after = behind.trim_start_matches([' ', '\t']);
        if let Some(value_text) = after.strip_prefix('=').filter(|text| !is_token68(text, behind)) {
            // `name = value`: a parameter of the challenge before.
            let Some((value, behind)) = parameter_value(value_text.trim_start_matches([' ', '\t'])) else {
                return challenges;
            };
            let Some(challenge) = challenges.last_mut() else { return challenges };
            if challenge.params.len() < MAX_PARAMS {
                challenge.params.push((token.to_ascii_lowercase(), value));
            }
            rest = behind;
        } else {
            if challenges.len() == MAX_CHALLENGES {
                return challenges;
            }
            challenges.push(Challenge { scheme: token.to_ascii_lowercase(), params: Vec::new() });
            rest = behind;
        }
    }
}

/// `Negotiate abcd==`: what is left of a token68 is only equals signs up to the next comma.
fn is_token68(text: &str, behind: &str) -> bool {
    behind.starts_with('=')
        && text.split(',').next().is_some_and(|left| left.trim().bytes().all(|b| b == b'='))
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text.bytes().position(|b| !is_token_byte(b)).unwrap_or(text.len());
    if end == 0 { None } else { Some(text.split_at(end)) }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte)
}

/// A token or a quoted string; yields the value and what is behind it.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Not quite a token: some servers leave out the quotes around URLs.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return if end == 0 { None } else { Some((text[..end].to_owned(), &text[end..])) };
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None // no closing quote
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn challenge(scheme: &str, params: &[(&str, &str)]) -> Challenge {
        Challenge {
            scheme: scheme.to_owned(),
            params: params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        }
    }

    #[test]
    fn what_registries_send_is_understood() {
        for (text, want) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![challenge(
                    "bearer",
                    &[
                        ("realm", "https://auth.docker.io/token"),
                        ("service", "registry.docker.io"),
                        ("scope", "repository:a/b:pull,push"),
                    ],
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![challenge("basic", &[("realm", "Registry Realm")])]),
            ("Basic", vec![challenge("basic", &[])]),
            (
                r#"BEARER Realm = https://x/t , Service=s, basic realm="b""#,
                vec![
                    challenge("bearer", &[("realm", "https://x/t"), ("service", "s")]),
                    challenge("basic", &[("realm", "b")]),
                ],
            ),
            (r#"Bearer realm="a\"b\\c""#, vec![challenge("bearer", &[("realm", "a\"b\\c")])]),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }

    #[test]
    fn nonsense_ends_the_parse() {
        for text in ["", ",,,", "=x", "\"", "realm=\"x\""] {
            assert!(parse(text).is_empty(), "{text}");
        }
        assert_eq!(parse("Bearer realm=\"never closed"), vec![challenge("bearer", &[])]);
        assert!(parse(&"a ".repeat(100_000)).is_empty());
        assert_eq!(parse(&"a ".repeat(1000)).len(), MAX_CHALLENGES);
        assert_eq!(parse(&format!("Bearer {}", "a=b,".repeat(1000)))[0].params.len(), MAX_PARAMS);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,200}|[ ,=\"\\\\a-zA-Z:/.]{0,200}") {
            let got = parse(&text);
            prop_assert!(got.len() <= MAX_CHALLENGES);
        }

        #[test]
        fn what_is_written_quoted_is_read(
            params in proptest::collection::vec(("[a-z]{1,8}", "[ -~]{0,20}"), 0..6)
        ) {
            let text = params
                .iter()
                .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect::<Vec<_>>()
                .join(", ");
            let got = parse(&format!("Bearer {text}"));
            prop_assert_eq!(got, vec![Challenge { scheme: "bearer".into(), params }]);
        }
    }
}
