//! The metastores against their suite, against a naive model, and against what each promises alone.

#[path = "metastore/broken.rs"]
mod broken;
#[path = "metastore/conforms.rs"]
mod conforms;
#[path = "metastore/model.rs"]
mod model;
#[cfg(feature = "redb")]
#[path = "metastore/redb.rs"]
mod redb;
