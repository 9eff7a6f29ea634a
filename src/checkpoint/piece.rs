//! A piece as bytes: its tables one after the other, each an Arrow IPC stream of its own.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

pub(super) fn encode(tables: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    // About as many, so that little of it is copied while it grows.
    let mut bytes = Vec::with_capacity(tables.iter().map(RecordBatch::get_array_memory_size).sum());
    for table in tables {
        let mut stream = StreamWriter::try_new(&mut bytes, table.schema_ref())?;
        stream.write(table)?;
        stream.finish()?;
    }
    Ok(bytes)
}

pub(super) fn decode(mut bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut tables = Vec::new();
    while !bytes.is_empty() {
        // A stream says where it ends, and no more is read: the next one begins there.
        for table in StreamReader::try_new(&mut bytes, None)? {
            tables.push(table?);
        }
    }
    Ok(tables)
}
