//! What the store does for the sink, in one request: takes ownership, guards, inserts; as its kind and its flaw say.

use std::collections::BTreeMap;

use super::{
    super::{StoredRow, columns},
    server::{Disk, Held, Rows},
    sink::{Flaw, Kind},
};
use crate::{
    Error, Result,
    chunk::SinkTable,
    config::OnConflict,
    row::{Column, Timestamp, Value},
    sink::{Owner, SinkContext},
    spool::{Boot, Cause, SpoolPosition},
};

#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) kind: Kind,
    pub(super) flaw: Option<Flaw>,
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) owner: Owner,
    pub(super) tables: Vec<SinkTable>,
    pub(super) by: (u64, u64),
    /// Where the next chunk has to begin.
    pub(super) at: SpoolPosition,
}

/// Who has taken a position, and where it is.
pub(super) type Taken = ((u64, u64), SpoolPosition);

/// A chunk as the store takes it.
#[derive(Debug, Clone)]
pub(super) struct Portion {
    pub(super) rows: Vec<(usize, Cause, StoredRow)>,
    pub(super) from: SpoolPosition,
    pub(super) to: SpoolPosition,
}

/// Returns whether the store takes no such value: no NUL in texts, no number that is none.
pub(super) fn refuses(value: Option<&Value>) -> bool {
    match value {
        Some(Value::F64(number)) => number.is_nan(),
        Some(Value::Text(text)) => text.contains('\0'),
        Some(Value::Bool(_) | Value::I64(_) | Value::U64(_) | Value::Time(_) | Value::Levels(_) | Value::List(_))
        | None => false,
    }
}

impl How {
    pub(super) fn is(self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub(super) fn keeps_position(self) -> bool {
        matches!(self.kind, Kind::Transaction | Kind::Accepting)
    }

    pub(super) fn refuses(self, column: &Column, value: Option<&Value>) -> bool {
        let is_long = matches!(value, Some(Value::Text(text)) if text.len() > 100_000);
        if self.is(Flaw::NanIsAbsent) && &*column.name == "number" {
            return false;
        }
        refuses(value) || is_long && self.is(Flaw::RefusesLongTexts)
    }

    pub(super) fn name(self, table: &SinkTable) -> String {
        let end = table.name.find([' ', '\'', '"']).filter(|_| self.is(Flaw::DoesNotQuote));
        table.name[..end.unwrap_or(table.name.len())].to_owned()
    }

    /// Takes ownership; none where a position is known and there is none.
    pub(super) fn take(self, disk: &mut Disk, cx: &SinkContext, me: u64, has_begun: bool) -> Result<Option<Taken>> {
        let key = (cx.owner.pipeline.clone(), cx.owner.sink.clone());
        let held = disk.positions.get(&key).cloned();
        if let Some(held) = &held {
            if held.spool != cx.owner.spool && !self.is(Flaw::AsksForNoSpool) {
                return Err(Error::permanent("the position belongs to another spool"));
            }
            if has_begun && held.by.0 != me && !self.is(Flaw::TakesBack) {
                return Err(Error::permanent("another program has taken over"));
            }
        }
        let at = held.as_ref().map_or(SpoolPosition::START, |held| held.at);
        let is_known = cx.known.is_some();
        if self.keeps_position() && is_known && at == SpoolPosition::START && !self.is(Flaw::BeginsAnew) {
            return Ok(None);
        }
        for table in &cx.tables {
            let name = self.name(table);
            if is_known
                && !disk.tables.contains_key(&name)
                && !self.is(Flaw::MakesTablesAnew)
                && !self.is(Flaw::BeginsAnew)
            {
                return Err(Error::permanent(format!("table `{name}` is gone")));
            }
            let made = disk.tables.entry(name).or_default();
            if made.columns.is_empty() || !self.is(Flaw::LeavesColumnsOut) {
                made.columns.extend(columns(table).iter().map(|column| column.name.to_string()));
            }
        }
        let by = (me, held.as_ref().map_or(0, |held| held.by.1) + 1);
        if self.keeps_position() {
            let (spool, host) = (cx.owner.spool, cx.owner.host.clone());
            let tables = cx.tables.iter().map(|table| table.name.clone()).collect();
            let at =
                if self.is(Flaw::BeginsAnew) && is_known { SpoolPosition { boot: Boot(1), offset: 1 } } else { at };
            disk.positions.insert(key, Held { spool, host, by, at, tables });
        }
        Ok(Some((by, at)))
    }

    pub(super) fn transact(self, disk: &mut Disk, session: &Session, portion: &Portion) -> Result<()> {
        self.guard(disk, session, portion)?;
        self.insert(disk, session, portion)?;
        self.place(disk, session, portion);
        Ok(())
    }

    pub(super) fn advance(self, disk: &mut Disk, session: &Session, portion: &Portion) -> Result<()> {
        self.guard(disk, session, portion)?;
        self.place(disk, session, portion);
        Ok(())
    }

    fn guard(self, disk: &Disk, session: &Session, portion: &Portion) -> Result<()> {
        let held = disk.positions.get(&(session.owner.pipeline.clone(), session.owner.sink.clone()));
        let Some(held) = held else { return Err(Error::transient("there is no position")) };
        let stands = held.at == portion.from
            || self.is(Flaw::GuardsTheOffsetOnly) && held.at.offset == portion.from.offset
            || self.is(Flaw::CutsTheBoot);
        let is_ours = held.by == session.by || self.is(Flaw::HasNoEpoch);
        if stands && is_ours || self.is(Flaw::DoesNotGuard) {
            return Ok(());
        }
        let text = "the position is not where it was left";
        Err(if self.is(Flaw::MissedGuardIsPermanent) { Error::permanent(text) } else { Error::transient(text) })
    }

    pub(super) fn place(self, disk: &mut Disk, session: &Session, portion: &Portion) {
        let key = (session.owner.pipeline.clone(), session.owner.sink.clone());
        let Some(held) = disk.positions.get_mut(&key) else { return };
        held.at = portion.to;
        if self.is(Flaw::CutsTheBoot) {
            held.at.boot.0 &= u64::from(u32::MAX);
        }
    }

    /// Inserts all rows, or none.
    pub(super) fn insert(self, disk: &mut Disk, session: &Session, portion: &Portion) -> Result<()> {
        let mut tables: BTreeMap<String, Rows> = BTreeMap::new();
        for (n, (number, cause, row)) in portion.rows.iter().enumerate() {
            if self.is(Flaw::LosesOneInSeven) && n % 7 == 6 || self.is(Flaw::CutsHugeChunks) && n > 1_000 {
                continue;
            }
            let (table, name) = (&session.tables[*number], self.name(&session.tables[*number]));
            if !tables.contains_key(&name) {
                let there = disk.tables.get(&name).cloned();
                let made = self.is(Flaw::MakesTablesAnew).then(Rows::default);
                let Some(there) = there.or(made) else {
                    return Err(Error::permanent(format!("table `{name}` is gone")));
                };
                tables.insert(name.clone(), there);
            }
            let Some(rows) = tables.get_mut(&name) else { continue };
            let mut row: StoredRow =
                row.clone().into_iter().filter_map(|(name, value)| self.kept(name, value)).collect();
            let lacking = row.keys().find(|name| !rows.columns.is_empty() && !rows.columns.contains(*name)).cloned();
            match lacking {
                Some(_) if self.is(Flaw::LeavesColumnsOut) => row.retain(|name, _| rows.columns.contains(name)),
                Some(name) => return Err(Error::transient(format!("no column `{name}`"))),
                None => {}
            }
            self.put(rows, table, *cause, row);
        }
        disk.tables.extend(tables);
        Ok(())
    }

    fn put(self, rows: &mut Rows, table: &SinkTable, cause: Cause, row: StoredRow) {
        let same = if self.kind == Kind::Keyed && !self.is(Flaw::HasNoKeys) {
            rows.rows.iter().position(|(known, _)| *known == cause)
        } else if table.key.is_empty() || self.is(Flaw::ReplaceAppends) {
            None
        } else {
            rows.rows.iter().position(|(_, known)| table.key.iter().all(|column| known.get(column) == row.get(column)))
        };
        match same {
            Some(_) if table.on_conflict == OnConflict::Ignore => {}
            Some(at) => rows.rows[at] = (cause, row),
            None => rows.rows.push((cause, row)),
        }
    }

    fn kept(self, name: String, value: Value) -> Option<(String, Value)> {
        let value = match (self.flaw, value) {
            (Some(Flaw::ClampsUnsigned), Value::U64(n)) => Value::U64(n.min(i64::MAX as u64)),
            (Some(Flaw::DropsTheSignOfZero), Value::F64(0.0)) => Value::F64(0.0),
            (Some(Flaw::NanIsAbsent), Value::F64(n)) if n.is_nan() => return None,
            (Some(Flaw::EmptyIsAbsent), Value::Text(text)) if text.is_empty() => return None,
            (Some(Flaw::CutsTimes), Value::Time(Timestamp(n))) => Value::Time(Timestamp(n / 1_000 * 1_000)),
            (_, value) => value,
        };
        Some((name, value))
    }
}
