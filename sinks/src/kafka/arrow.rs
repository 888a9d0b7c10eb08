//! Rows as an Arrow IPC stream.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt32Array, cast::AsArray, types::Int32Type};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::take::take;
use tidegate_core::{Error, Result};

/// Returns some rows of a batch as a stream of schema and one batch. Labels become texts: a dictionary has those of all rows.
///
/// # Errors
///
/// `Transient`; none is known.
pub(super) fn stream(batch: &RecordBatch, rows: &[u32]) -> Result<Vec<u8>> {
    write(batch, rows).map_err(|error| Error::transient("rows cannot be written as Arrow").because(error))
}

fn write(batch: &RecordBatch, rows: &[u32]) -> Result<Vec<u8>, ArrowError> {
    let rows = UInt32Array::from(rows.to_vec());
    let schema = batch.schema_ref();
    let mut fields = Vec::with_capacity(schema.fields().len());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if matches!(field.data_type(), DataType::Dictionary(..)) {
            let labels = column.as_dictionary::<Int32Type>();
            let keys = take(labels.keys(), &rows, None)?;
            columns.push(take(labels.values(), &keys, None)?);
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable())));
        } else {
            columns.push(take(column, &rows, None)?);
            fields.push(field.clone());
        }
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    writer.into_inner()
}
