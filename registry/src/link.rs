//! `Link` (RFC 8288): where the next page is. Parsing only.

use crate::limits::MAX_HEADER;

/// The target of the first link whose relation is `next`.
pub(crate) fn next(value: &str) -> Option<&str> {
    if value.len() > MAX_HEADER {
        return None;
    }
    let mut rest = value;
    loop {
        let (_, behind) = rest.split_once('<')?;
        let (target, behind) = behind.split_once('>')?;
        let end = end_of_link(behind);
        let (params, after) = behind.split_at(end);
        if params.split(';').any(is_next) {
            return Some(target);
        }
        rest = after;
    }
}

/// Where the comma is that ends a link's parameters; commas in quotes don't.
fn end_of_link(params: &str) -> usize {
    let mut quoted = false;
    for (at, byte) in params.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    params.len()
}

fn is_next(param: &str) -> bool {
    let Some((name, value)) = param.split_once('=') else { return false };
    name.trim().eq_ignore_ascii_case("rel")
        && value.trim().trim_matches('"').split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found() {
        for (text, want) in [
            ("</v2/a/referrers/x?n=1&last=b>; rel=\"next\"", Some("/v2/a/referrers/x?n=1&last=b")),
            ("<a>; rel=next", Some("a")),
            ("<a>; rel=\"prev\", <b>; title=\"x, <y>\"; REL=\"first Next\"", Some("b")),
            ("<a>; rel=prev", None),
            ("<a>", None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next(text), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,200}|[<>;,=\"relnxt ]{0,200}") {
            let _ = next(&text);
        }

        #[test]
        fn a_written_link_is_read(target in "[!-;=?-~]{0,40}", before in "[!-;=?-~]{0,10}") {
            let text = format!("<{before}>; rel=\"prev\", <{target}>; rel=\"next\"");
            prop_assert_eq!(next(&text), Some(target.as_str()));
        }
    }
}
