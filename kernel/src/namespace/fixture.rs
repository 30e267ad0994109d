//! Rows for tests: what readers that lie over others are laid over.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::hal::{Reader, RowKey, StoreError};

/// Rows in a map.
#[derive(Debug, Default, Clone)]
pub(super) struct Base(pub(super) BTreeMap<RowKey, Bytes>);

impl Reader for Base {
    fn get(&self, key: &RowKey) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &RowKey,
        after: Option<&RowKey>,
        limit: usize,
    ) -> Result<Vec<(RowKey, Bytes)>, StoreError> {
        let within = |key: &RowKey| key.table == prefix.table && key.bytes.starts_with(&prefix.bytes);
        let rows = self.0.iter().filter(|(key, _)| within(key) && after.is_none_or(|after| *key > after));
        Ok(rows.take(limit).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
