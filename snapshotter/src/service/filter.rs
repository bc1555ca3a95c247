//! containerd's filter language, as far as snapshots have fields: what `List` is asked with.
//!
//! A filter is `selector,selector,…`, of which all must match; several filters are alternatives. A selector is
//! `field.path`, alone (is it there?) or with `==`, `!=` or `~=` (a regular expression) and a value. Fields and values
//! may be quoted as Go quotes strings; the value of `~=` also with `/` or `|`. Fields are `name`, `parent`, `kind` and
//! `labels.NAME`, where a quoted name may hold dots. Pure: no snapshot is touched here.

use regex::bytes::{Regex, RegexBuilder};

use super::Info;
use crate::Error;

/// A longer filter isn't one that containerd writes: two labels of 4 KiB, the most it stores, with names and parent.
const MAX_FILTER_LEN: usize = 16 << 10;

/// Memory that one regular expression may compile to, in bytes; repetitions multiply.
const MAX_REGEX_SIZE: usize = 1 << 20;

/// Alternatives; matches everything when there are none.
#[derive(Debug)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    field: Field,
    test: Test,
}

#[derive(Debug, PartialEq, Eq)]
enum Field {
    Name,
    Parent,
    Kind,
    Label(String),
    /// A field that snapshots don't have: never present, which `!=` is true for.
    Unknown,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    Matches(Regex),
}

impl Filters {
    /// Understands `filters`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], which says where a filter can't be read.
    pub fn parse(filters: &[String]) -> Result<Self, Error> {
        let parse_one = |filter: &String| {
            Parser { text: filter, rest: filter }
                .selectors()
                .map_err(|what| Error::InvalidArgument(format!("filter {filter:?}: {what}")))
        };
        Ok(Self(filters.iter().map(parse_one).collect::<Result<_, _>>()?))
    }

    /// Whether one of the filters matches `info`.
    pub fn matches(&self, info: &Info) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|selectors| selectors.iter().all(|selector| selector.matches(info)))
    }
}

impl Selector {
    fn matches(&self, info: &Info) -> bool {
        let value = match &self.field {
            Field::Name => Some(info.name.as_str()),
            Field::Parent => Some(info.parent.as_str()),
            Field::Kind => Some(info.kind.as_str()),
            Field::Label(name) => info.labels.get(name).map(String::as_str),
            Field::Unknown => None,
        };
        // Bytes: a quoted value may hold some that aren't UTF-8.
        let bytes = value.unwrap_or_default().as_bytes();
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(want) => value.is_some() && bytes == want,
            Test::NotEqual(other) => bytes != other,
            Test::Matches(regex) => value.is_some() && regex.is_match(bytes),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Parser<'_> {
    fn selectors(mut self) -> Result<Vec<Selector>, String> {
        if self.text.len() > MAX_FILTER_LEN {
            return Err(format!("is longer than {MAX_FILTER_LEN} bytes"));
        }
        if self.text.is_empty() {
            return Ok(Vec::new()); // all of no selectors: everything
        }
        let mut selectors = vec![self.selector()?];
        while !self.rest.is_empty() {
            if !self.take(',') {
                return Err(self.expected("a comma"));
            }
            selectors.push(self.selector()?);
        }
        Ok(selectors)
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut path = vec![self.field()?];
        while self.take('.') {
            path.push(self.field()?);
        }
        let field = match path[0].as_slice() {
            b"name" => Field::Name,
            b"parent" => Field::Parent,
            b"kind" => Field::Kind,
            // A name that isn't UTF-8 is no label's.
            b"labels" => String::from_utf8(path[1..].join(&b'.')).map_or(Field::Unknown, Field::Label),
            _ => Field::Unknown,
        };
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Selector { field, test: Test::Present });
        }
        self.skip_space();
        let (operator, _) = self.split_while(|c| matches!(c, '=' | '!' | '~'));
        let test = match operator {
            "==" => Test::Equal(self.value(false)?),
            "!=" => Test::NotEqual(self.value(false)?),
            "~=" => {
                let pattern = self.value(true)?;
                let pattern = std::str::from_utf8(&pattern).map_err(|_| "the expression isn't UTF-8")?;
                let regex = RegexBuilder::new(pattern).size_limit(MAX_REGEX_SIZE).build();
                Test::Matches(regex.map_err(|error| format!("the expression can't be used: {error}"))?)
            }
            "" => return Err(self.expected("one of == != ~=")),
            other => return Err(format!("unknown operator {other:?}")),
        };
        Ok(Selector { field, test })
    }

    fn field(&mut self) -> Result<Vec<u8>, String> {
        self.skip_space();
        if self.rest.starts_with(['"', '/', '|']) {
            return self.quoted(false);
        }
        let (field, _) = self.split_while(|c| c == '_' || c.is_ascii_alphanumeric());
        if field.is_empty() { Err(self.expected("a field")) } else { Ok(field.as_bytes().to_vec()) }
    }

    fn value(&mut self, any_quote: bool) -> Result<Vec<u8>, String> {
        self.skip_space();
        if self.rest.starts_with(['"', '/', '|']) {
            return self.quoted(any_quote);
        }
        let (value, _) = self.split_while(|c| c != ',' && !c.is_whitespace() && !c.is_control());
        if value.is_empty() { Err(self.expected("a value")) } else { Ok(value.as_bytes().to_vec()) }
    }

    /// A quoted string, whose quote is next.
    fn quoted(&mut self, any_quote: bool) -> Result<Vec<u8>, String> {
        let quote = self.rest.chars().next().unwrap_or('"');
        if quote != '"' && !any_quote {
            return Err(self.expected("double quotes"));
        }
        let mut bytes = Vec::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\n' => break,
                '\\' => {
                    let escape = self.rest[1..].get(at + 1..).unwrap_or_default();
                    let len = unescape(escape, quote, &mut bytes)
                        .ok_or_else(|| format!("unknown escape at {:?}", &self.rest[1 + at..]))?;
                    // The escape is ASCII: as many characters as bytes.
                    chars.nth(len - 1);
                }
                _ if c == quote => {
                    self.rest = &self.rest[1 + at + 1..];
                    return Ok(bytes);
                }
                _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Err(format!("the quote at {:?} isn't closed", self.rest))
    }

    fn take(&mut self, what: char) -> bool {
        let rest = self.rest.strip_prefix(what);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn split_while(&mut self, belongs: impl Fn(char) -> bool) -> (&str, &str) {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (head, tail) = self.rest.split_at(end);
        self.rest = tail;
        (head, tail)
    }

    fn expected(&self, what: &str) -> String {
        format!("expected {what} at {:?}", self.rest)
    }
}

/// Decodes what follows a backslash onto `out` and says how long it was (in bytes, all ASCII); `None` where it is no
/// escape of Go's.
fn unescape(escape: &str, quote: char, out: &mut Vec<u8>) -> Option<usize> {
    let kind = *escape.as_bytes().first()?;
    let simple = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' => b'\\',
        _ if char::from(kind) == quote => kind,
        b'0'..=b'7' => {
            let digits = escape.get(..3)?;
            out.push(u8::from_str_radix(digits, 8).ok()?);
            return Some(3);
        }
        b'x' => {
            out.push(u8::try_from(hex(escape.get(1..3)?)?).ok()?);
            return Some(3);
        }
        b'u' | b'U' => {
            let len = if kind == b'u' { 4 } else { 8 };
            let c = char::from_u32(hex(escape.get(1..=len)?)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(1 + len);
        }
        _ => return None,
    };
    out.push(simple);
    Some(1)
}

/// Hexadecimal digits only: `from_str_radix` would take a sign.
fn hex(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::SystemTime;

    use super::*;
    use crate::service::Kind;

    fn info() -> Info {
        Info {
            kind: Kind::Committed,
            name: "k8s.io/7/sha256:aa".into(),
            parent: "sha256:bb".into(),
            labels: HashMap::from([
                ("containerd.io/snapshot.ref".into(), "sha256:cc".into()),
                ("plain".into(), "with, comma".into()),
                ("a.b".into(), "1".into()),
            ]),
            created: SystemTime::UNIX_EPOCH,
            updated: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_filter_matches_as_in_containerd() {
        for (filter, want) in [
            ("", true),
            ("name", true),
            ("nothing", false),
            ("nothing!=x", true),
            ("name==k8s.io/7/sha256:aa", true),
            (r#"name=="k8s.io/7/sha256:aa""#, true),
            ("name==k8s.io/7/sha256:a", false),
            ("kind==committed", true),
            ("kind==active", false),
            ("kind!=active", true),
            // What containerd asks after AlreadyExists, the first value unquoted:
            (r#"labels."containerd.io/snapshot.ref"==sha256:cc,parent=="sha256:bb""#, true),
            (r#"labels."containerd.io/snapshot.ref"==sha256:cc,parent=="""#, false),
            (r#"labels."containerd.io/snapshot.ref"==sha256:dd,parent=="sha256:bb""#, false),
            ("labels.plain", true),
            ("labels.a.b==1", true), // the rest of the path is one name
            ("labels.other", false),
            ("labels", false),
            (r#"labels.plain=="with, comma""#, true),
            (r#"labels.plain=="with\x2c comma""#, true),
            (r#"labels.plain=="with\054\u0020comma""#, true),
            ("name~=sha256:a+$", true),
            ("name~=/^k8s.io\\//", true),
            ("name~=|^k8s.io/|", true),
            ("name~=^moby", false),
            ("labels.other~=.*", false), // absent matches nothing
            ("name == k8s.io/7/sha256:aa", true),
            ("name==x\"y", false), // a quote inside a value is a character
        ] {
            let filters = Filters::parse(&[filter.to_owned()]).expect(filter);
            assert_eq!(filters.matches(&info()), want, "{filter}");
        }
    }

    #[test]
    fn several_filters_are_alternatives() {
        for (filters, want) in [
            (vec![], true),
            (vec!["kind==active", "kind==committed"], true),
            (vec!["kind==active", "kind==view"], false),
            (vec!["kind==active", ""], true),
        ] {
            let texts: Vec<String> = filters.iter().map(|&f| f.to_owned()).collect();
            assert_eq!(Filters::parse(&texts).expect("filters").matches(&info()), want, "{filters:?}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for filter in [
            ",",
            "name,",
            ".name",
            "name.",
            "name=x",
            "name===x",
            "name==",
            "name==,kind",
            "name==x y",
            "name==\"x",
            "name==\"x\ny\"",
            r#"name=="\q""#,
            r#"name=="\x1""#,
            r#"name=="\x+1""#,
            r#"name=="\400""#,
            r#"name=="\ud800""#,
            "name==/x/",
            "/name/==x",
            "name~=(",
            "name~=(((a{100}){100}){100}){100}",
            "na-me==x",
            "name\\==x",
            "name==\"\\",
        ] {
            let parsed = Filters::parse(&[filter.to_owned()]);
            assert!(matches!(parsed, Err(Error::InvalidArgument(_))), "{filter}: {parsed:?}");
        }
        let long = format!("name=={}", "x".repeat(MAX_FILTER_LEN));
        assert!(Filters::parse(&[long]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in "\\PC*|[a-z\"\\\\/|.,=!~x0-9 ]*") {
            let _ = Filters::parse(&[text]);
        }
    }
}
