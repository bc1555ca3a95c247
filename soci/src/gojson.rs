//! JSON as Go's `encoding/json` writes it, so that digests equal those of SOCI's tools: compact, in the order of the
//! struct's members, with `<`, `>`, `&` and the two line separators of Unicode escaped.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// `value` in Go's compact form. Maps must be sorted (annotations are).
///
/// # Panics
/// Never for this crate's types: their members have text for keys and serialize without error.
pub fn to_vec(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, GoFormatter);
    value.serialize(&mut serializer).expect("manifests serialize, and memory takes any write");
    out
}

/// A JSON string of `bytes`, in its quotes. Go writes `\ufffd` for each byte that is in no UTF-8 sequence.
pub fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        let text = serde_json::Value::from(chunk.valid());
        let text = String::from_utf8(to_vec(&text)).expect("JSON is UTF-8");
        out.push_str(&text[1..text.len() - 1]); // without its quotes
        for _ in chunk.invalid() {
            out.push_str("\\ufffd");
        }
    }
    out.push('"');
    out
}

/// Compact JSON with `indent` for each level, as Go's `json.Indent` makes it: only white space is added, so what was
/// escaped stays so. `json` must be compact JSON.
pub fn indent(json: &[u8], indent: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(indent.as_bytes(), depth).flatten());
    };
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (at, &byte) in json.iter().enumerate() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if !matches!(json.get(at + 1), Some(b'}' | b']')) {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(at.checked_sub(1).map(|before| json[before]), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    newline(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                newline(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

/// `json` without white space between its tokens, and with Go's escapes within its strings: as Go's `json.Compact` does when a
/// value is written as it came. `json` must be JSON.
pub fn compact(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = json;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if !in_string {
            in_string = byte == b'"';
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                out.push(byte);
            }
            continue;
        }
        match (byte, behind) {
            (b'<' | b'>' | b'&', _) => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            // The line separators U+2028 and U+2029.
            (0xe2, [0x80, last @ (0xa8 | 0xa9), more @ ..]) => {
                out.extend_from_slice(format!("\\u20{:02x}", last - 0x80).as_bytes());
                rest = more;
            }
            _ => out.push(byte),
        }
        in_string = escaped || byte != b'"';
        escaped = !escaped && byte == b'\\';
    }
    out
}

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (before, from) = rest.split_at(at);
            CompactFormatter.write_string_fragment(writer, before)?;
            let Some(odd) = from.chars().next() else { break };
            write!(writer, "\\u{:04x}", u32::from(odd))?;
            rest = &from[odd.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        for (text, want) in [
            ("plain /é", "\"plain /é\""),
            ("a<b>&c", r#""a\u003cb\u003e\u0026c""#),
            ("\u{2028}\u{2029}", r#""\u2028\u2029""#),
            ("\"\\\n\t\u{1}\u{7f}", "\"\\\"\\\\\\n\\t\\u0001\u{7f}\""),
        ] {
            assert_eq!(String::from_utf8(to_vec(&text)).unwrap(), want);
            assert_eq!(quote(text.as_bytes()), want);
        }
        // Go's answer for each of these bytes, and a replacement character that was there.
        assert_eq!(quote(b"a\xff\xe2\x80b\xef\xbf\xbd"), "\"a\\ufffd\\ufffd\\ufffdb\u{fffd}\"");
    }

    #[test]
    fn indent_adds_white_space_only() {
        let json = br#"{"a":{},"b":[1,{"c":"x,{\"y\\"}],"d":[]}"#;
        let want = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    {\n      \"c\": \"x,{\\\"y\\\\\"\n    }\n  ],\n  \"d\": []\n}";
        assert_eq!(String::from_utf8(indent(json, "  ")).unwrap(), want);
    }
}
