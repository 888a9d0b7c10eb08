//! An option that is short as a text and long as a table.

use std::{fmt, marker::PhantomData};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        self, IntoDeserializer, MapAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};

/// A text, or a table that says more: `"ETH-PERPETUAL"` or `{ currency = "ETH", top = 50 }`.
///
/// serde's own `untagged` forgets where a mistake in the table stands; this does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum TextOr<X, T> {
    /// The short form.
    Text(X),
    /// The long form.
    Table(T),
}

pub(super) const EXPECTED: &str = "a text, or a table";

impl<'de, X: Deserialize<'de>, T: Deserialize<'de>> Deserialize<'de> for TextOr<X, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<X, T>(PhantomData<(X, T)>);
        impl<'de, X: Deserialize<'de>, T: Deserialize<'de>> Visitor<'de> for Either<X, T> {
            type Value = TextOr<X, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let text: StrDeserializer<'_, E> = text.into_deserializer();
                X::deserialize(text).map(TextOr::Text)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Table)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}
