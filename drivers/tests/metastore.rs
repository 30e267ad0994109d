//! The metastores against their suite, against a naive model, and against what each promises alone.

#[cfg(all(feature = "redb", feature = "faults"))]
#[cfg(test)]
#[path = "metastore/beside.rs"]
mod beside;
#[cfg(test)]
#[path = "metastore/broken.rs"]
mod broken;
#[cfg(test)]
#[path = "metastore/conforms.rs"]
mod conforms;
#[cfg(all(feature = "redb", feature = "faults"))]
#[cfg(test)]
#[path = "metastore/crash.rs"]
mod crash;
#[cfg(all(feature = "redb", feature = "faults"))]
#[cfg(test)]
#[path = "metastore/damage.rs"]
mod damage;
#[cfg(all(feature = "redb", feature = "faults"))]
#[cfg(test)]
#[path = "metastore/full.rs"]
mod full;
#[cfg(test)]
#[path = "metastore/model.rs"]
mod model;
#[cfg(all(feature = "redb", feature = "faults"))]
#[cfg(test)]
#[path = "metastore/put_off.rs"]
mod put_off;
#[cfg(feature = "redb")]
#[cfg(test)]
#[path = "metastore/redb.rs"]
mod redb;
