//! What logs of our own are made of: frames that are bound to their store, their segment and the one before, in files of zeros that are written ahead.

pub(crate) mod aside;
pub(crate) mod frame;
pub(crate) mod segment;
