//! The reader as a deserializer of serde.

use serde::{
    Deserializer,
    de::{
        DeserializeSeed, MapAccess, SeqAccess, Visitor,
        value::{BorrowedStrDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{Inside, Reader, Unread, number::Number};

impl<'de> Deserializer<'de> for &mut Reader<'de, '_> {
    type Error = Unread;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        match self.peek() {
            b'"' => visitor.visit_borrowed_str(self.string()?),
            b'n' => {
                self.word("null")?;
                visitor.visit_unit()
            }
            b't' => {
                self.word("true")?;
                visitor.visit_bool(true)
            }
            b'f' => {
                self.word("false")?;
                visitor.visit_bool(false)
            }
            b'[' => self.deserialize_seq(visitor),
            b'{' => self.deserialize_map(visitor),
            _ => visit_number(self.number()?, visitor),
        }
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        self.peek();
        visit_number(self.number()?, visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        if self.peek() == b'n' {
            self.word("null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        let mut list = self.open(b'[')?;
        let value = visitor.visit_seq(Elements(&mut list))?;
        list.close(b']')?;
        Ok(value)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unread> {
        self.deserialize_seq(visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unread> {
        self.deserialize_seq(visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        self.deserialize_struct("", &[], visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        let order = self.orders.of(fields);
        let mut object = self.open(b'{')?;
        let value = visitor.visit_map(Members { inside: &mut object, order, last: None })?;
        object.close(b'}')?;
        Ok(value)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unread> {
        // A variant that holds something is an object.
        visitor.visit_enum(BorrowedStrDeserializer::new(self.string()?))
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Unread> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unread> {
        self.skip()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char str string bytes byte_buf unit unit_struct identifier
    }
}

#[inline]
fn visit_number<'de, V: Visitor<'de>>(number: Number, visitor: V) -> Result<V::Value, Unread> {
    match number {
        Number::Whole(number) => visitor.visit_u64(number),
        Number::Negative(number) => visitor.visit_i64(number),
        Number::Float(number) => visitor.visit_f64(number),
    }
}

/// The elements of a list.
struct Elements<'l, 'r, 'de, 'o>(&'l mut Inside<'r, 'de, 'o>);

impl<'de> SeqAccess<'de> for Elements<'_, '_, 'de, '_> {
    type Error = Unread;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unread> {
        if !self.0.goes_on(b']')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.0.reader).map(Some)
    }
}

/// The members of an object.
struct Members<'l, 'r, 'de, 'o> {
    inside: &'l mut Inside<'r, 'de, 'o>,
    order: usize,
    /// The last one that is a field.
    last: Option<u8>,
}

impl<'de> MapAccess<'de> for Members<'_, '_, 'de, '_> {
    type Error = Unread;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Unread> {
        if !self.inside.goes_on(b'}')? {
            return Ok(None);
        }
        let reader = &mut *self.inside.reader;
        if let Some((field, name)) = reader.orders.expected(self.order, self.last)
            && reader.takes_name(name)
        {
            self.last = Some(field);
            return seed.deserialize(StrDeserializer::new(name)).map(Some);
        }
        let name = reader.name()?;
        if let Some(field) = reader.orders.learn(self.order, self.last, name) {
            self.last = Some(field);
        }
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Unread> {
        seed.deserialize(&mut *self.inside.reader)
    }
}
