//! Edits JSON without touching what isn't edited: members keep their order, unknown ones stay, and numbers and strings keep the
//! bytes they were written with. Pure; which members are set is `convert::edit`'s.
//!
//! What comes out is compact, in the form of Go's `encoding/json`: of a document in that form only the edit differs.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::gojson;

/// The members of a JSON object, in their order, each value as it was written.
#[derive(Debug, Clone, Default)]
pub struct Members(Vec<(String, Box<RawValue>)>);

/// Where a new member goes.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// Behind the last of those that come before it in this order (which names it); first, where there is none of them.
    Order(&'a [&'a str]),
    /// Before the first whose name is greater: members are sorted by name.
    Sorted,
}

impl Members {
    /// Reads an object. Each name may be there once: of two members with one name, different readers take different ones.
    ///
    /// # Errors
    /// When it is no such object.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// A member's value, as it was written.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// A member's value as a `T`; `None` when it isn't there or is `null`.
    ///
    /// # Errors
    /// When it is none.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        match self.get(name) {
            Some(value) => serde_json::from_str(value.get()),
            None => Ok(None),
        }
    }

    /// Gives a member another value where it is, or adds it at its place.
    pub fn set(&mut self, name: &str, value: &impl Serialize, place: Place<'_>) {
        let value = raw(value);
        if let Some((_, old)) = self.0.iter_mut().find(|(other, _)| other == name) {
            *old = value;
            return;
        }
        let at = match place {
            Place::Order(order) => {
                let mine = order.iter().position(|other| *other == name).unwrap_or(order.len());
                let before = |other: &String| order.iter().take(mine).any(|earlier| earlier == other);
                self.0.iter().rposition(|(other, _)| before(other)).map_or(0, |at| at + 1)
            }
            Place::Sorted => {
                self.0.iter().position(|(other, _)| other.as_str() > name).unwrap_or(self.0.len())
            }
        };
        self.0.insert(at, (name.to_owned(), value));
    }

    /// The object, compact.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = vec![b'{'];
        for (at, (name, value)) in self.0.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(gojson::quote(name.as_bytes()).as_bytes());
            out.push(b':');
            out.extend_from_slice(&gojson::compact(value.get().as_bytes()));
        }
        out.push(b'}');
        out
    }
}

/// `value` as JSON in Go's form.
///
/// # Panics
/// Never for this crate's types, which serialize without error.
fn raw(value: &impl Serialize) -> Box<RawValue> {
    let json = String::from_utf8(gojson::to_vec(value)).expect("JSON is UTF-8");
    RawValue::from_string(json).expect("what was just written is JSON")
}

impl Serialize for Members {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = String::from_utf8(self.to_vec()).map_err(serde::ser::Error::custom)?;
        RawValue::from_string(json).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let (mut members, mut names) = (Vec::new(), std::collections::BTreeSet::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("member {name:?} is there twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn text(members: &Members) -> String {
        String::from_utf8(members.to_vec()).unwrap()
    }

    #[test]
    fn what_is_not_edited_keeps_its_bytes_but_for_white_space_and_go_s_escapes() {
        for (json, want) in [
            (
                r#"{ "b" : 1.50e+3,"a":[ 1 , 2 ],  "c":{"x": null} }"#,
                r#"{"b":1.50e+3,"a":[1,2],"c":{"x":null}}"#,
            ),
            (r#"{"n":123456789012345678901234567890}"#, r#"{"n":123456789012345678901234567890}"#),
            (
                "{\"s\":\"a<b>&c \u{2028}\\u00e9 \\\" \\\\ \"}",
                r#"{"s":"a\u003cb\u003e\u0026c \u2028\u00e9 \" \\ "}"#,
            ),
            ("{}", "{}"),
        ] {
            assert_eq!(text(&Members::parse(json.as_bytes()).unwrap()), want);
        }
    }

    #[test]
    fn a_member_is_replaced_where_it_is_or_added_at_its_place() {
        let order = ["a", "b", "c", "d"];
        for (json, place, want) in [
            (r#"{"d":1,"c":2,"x":3}"#, Place::Order(&order), r#"{"d":1,"c":"new","x":3}"#),
            (r#"{"a":1,"x":2,"b":3,"d":4}"#, Place::Order(&order), r#"{"a":1,"x":2,"b":3,"c":"new","d":4}"#),
            (r#"{"d":1,"x":2}"#, Place::Order(&order), r#"{"c":"new","d":1,"x":2}"#),
            (r#"{"a":1,"d":2}"#, Place::Sorted, r#"{"a":1,"c":"new","d":2}"#),
            (r#"{"a":1,"b":2}"#, Place::Sorted, r#"{"a":1,"b":2,"c":"new"}"#),
            ("{}", Place::Sorted, r#"{"c":"new"}"#),
        ] {
            let mut members = Members::parse(json.as_bytes()).unwrap();
            members.set("c", &"new", place);
            assert_eq!(text(&members), want);
        }
    }

    #[test]
    fn what_readers_could_differ_about_is_refused() {
        for json in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, "[]", "", "{", r#"{"a":1}x"#, "null"] {
            assert!(Members::parse(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn depth_takes_no_stack() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(text(&Members::parse(deep.as_bytes()).unwrap()), deep);
    }

    /// Any JSON.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~<>&\u{2028}é\"\\\\]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z<\"]{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_edit_changes_what_it_says_and_nothing_else(
            object in prop::collection::btree_map("[a-z]{0,2}", value(), 0..6),
            name in "[a-z]{0,2}",
            new in value(),
            pretty in any::<bool>(),
        ) {
            let before = Value::Object(object.into_iter().collect());
            let json = if pretty { serde_json::to_vec_pretty(&before) } else { serde_json::to_vec(&before) };
            let mut members = Members::parse(&json.unwrap()).unwrap();
            members.set(&name, &new, Place::Sorted);
            let after = members.to_vec();
            let mut want = before;
            want[&name] = new;
            prop_assert_eq!(&serde_json::from_slice::<Value>(&after).unwrap(), &want);
            // In Go's form, which the other writer of this crate makes too: sorted, since it was sorted.
            want.sort_all_objects();
            let mut sorted = serde_json::from_slice::<Value>(&after).unwrap();
            sorted.sort_all_objects();
            prop_assert_eq!(gojson::to_vec(&sorted), gojson::to_vec(&want));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Members::parse(&bytes);
        }

        #[test]
        fn compact_is_what_go_s_form_is(value in value()) {
            let pretty = serde_json::to_vec_pretty(&json!({ "a": value })).unwrap();
            prop_assert_eq!(gojson::compact(&pretty), gojson::to_vec(&json!({ "a": value })));
        }
    }
}
