//! The top level of a request's JSON object, each value left as the text it came as.
//!
//! A prompt may be hundreds of kilobytes, and a router reads a handful of small fields beside it:
//! one validating pass finds the fields, and none of them is rebuilt.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ApiError;

/// Fields at the top level of a body: far beyond any API, and few enough to search one by one.
pub const MAX_FIELDS: usize = 512;

/// A JSON object whose values are still text. Where a name comes twice, the last one counts, as in
/// the JSON readers of the instances behind us.
#[derive(Debug, Clone)]
pub struct Body<'a> {
    fields: Vec<(String, &'a RawValue)>,
}

impl<'a> Body<'a> {
    /// Reads a request's body. A body that is no JSON object is a 400 that says where.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(bytes)
            .map_err(|e| ApiError::bad_request(format!("The body is not a JSON object: {e}")))
    }

    /// The value of a field as it came, if the field is there.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    /// As [`Body::get`], but null is the same as absent.
    pub fn given(&self, name: &str) -> Option<&'a RawValue> {
        self.get(name).filter(|value| value.get() != "null")
    }

    /// Whether a field is `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.get() == "true")
    }

    /// A field read as a string; none if absent or something else.
    pub fn string(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// The fields in their order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Body<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Self::Value = Vec::with_capacity(16);
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if let Some(earlier) = fields.iter_mut().find(|(n, _)| *n == name) {
                        earlier.1 = value;
                    } else if fields.len() < MAX_FIELDS {
                        fields.push((name, value));
                    } else {
                        return Err(A::Error::custom(format!("more than {MAX_FIELDS} fields")));
                    }
                }
                Ok(fields)
            }
        }
        Ok(Self { fields: deserializer.deserialize_map(Fields)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_values_as_they_came() {
        let body = Body::parse(br#" {"a" : 1.0e2,"stream":true, "b":[ 1 ,2],"n":null} "#).unwrap();
        assert_eq!(body.get("a").unwrap().get(), "1.0e2");
        assert_eq!(body.get("b").unwrap().get(), "[ 1 ,2]");
        assert!(body.is_true("stream") && !body.is_true("a"));
        assert!(body.get("n").is_some() && body.given("n").is_none());
    }

    #[test]
    fn an_escaped_name_is_the_same_name_and_the_last_one_counts() {
        let body = Body::parse(br#"{"stream":false,"strea\u006d":true}"#).unwrap();
        assert!(body.is_true("stream"));
        assert_eq!(body.fields().count(), 1);
    }

    #[test]
    fn refuses_what_is_no_object() {
        for bad in ["", "[]", "1", "{", r#"{"a":}"#, "{} x", "\u{feff}{}"] {
            assert_eq!(Body::parse(bad.as_bytes()).unwrap_err().status, 400, "{bad:?}");
        }
        assert_eq!(Body::parse(b"{\"a\":\"\xff\"}").unwrap_err().status, 400);
        let deep = "[".repeat(1_000_000);
        assert_eq!(Body::parse(format!("{{\"a\":{deep}").as_bytes()).unwrap_err().status, 400);
        let many: Vec<String> = (0..=MAX_FIELDS).map(|i| format!("\"f{i}\":0")).collect();
        let many = format!("{{{}}}", many.join(","));
        assert!(Body::parse(many.as_bytes()).unwrap_err().message.contains("more than 512 fields"));
    }
}
