//! The orders in which members came.

/// By struct: in which order the members of the last one came, so that the next one is read by comparison.
#[derive(Debug, Default)]
pub(crate) struct Orders(Vec<Order>);

#[derive(Debug)]
struct Order {
    fields: &'static [&'static str],
    /// What came first, then for each field what came behind it.
    next: Vec<u8>,
}

impl Orders {
    /// Returns the number of a struct; a new one is expected in the order of its fields.
    #[inline]
    pub(super) fn of(&mut self, fields: &'static [&'static str]) -> usize {
        // By address: the fields of one type are one static list. Two lists of one type only learn twice.
        if let Some(at) = self.0.iter().position(|order| std::ptr::eq(order.fields, fields)) {
            return at;
        }
        self.0.push(Order { fields, next: (0..=u8::MAX).take(fields.len() + 1).collect() });
        self.0.len() - 1
    }

    /// Returns the name that is expected behind the field `last`.
    #[inline]
    pub(super) fn expected(&self, order: usize, last: Option<u8>) -> Option<(u8, &'static str)> {
        let order = self.0.get(order)?;
        let next = *order.next.get(last.map_or(0, |last| usize::from(last) + 1))?;
        Some((next, order.fields.get(usize::from(next))?))
    }

    /// Takes what came instead; returns its number, `None` if it is no field.
    pub(super) fn learn(&mut self, order: usize, last: Option<u8>, name: &str) -> Option<u8> {
        let order = self.0.get_mut(order)?;
        let came = order.fields.iter().position(|field| *field == name)?;
        let came = u8::try_from(came).ok()?;
        *order.next.get_mut(last.map_or(0, |last| usize::from(last) + 1))? = came;
        Some(came)
    }
}
