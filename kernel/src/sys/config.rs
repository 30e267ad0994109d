//! `config/`: the settings that the kernel runs with.

use std::path::Path;

use serde::Serialize;

use super::{Entry, Provider};
use crate::kernel::Kernel;

pub(super) struct Config;

#[derive(Serialize)]
struct Settings<'k> {
    /// Where drivers keep their data; null for a kernel in memory.
    data_folder: Option<&'k Path>,
    metadata_cache_bytes: u64,
    content_cache_bytes: u64,
    restarts_max: u32,
    restarts_within_ms: u128,
    /// The drivers that can be mounted.
    drivers: Vec<&'k str>,
}

impl Provider for Config {
    fn name(&self) -> &'static str {
        "config"
    }

    fn look(&self, kernel: &Kernel, at: &[&str]) -> Option<Entry> {
        match at {
            [] => Some(Entry::directory([("kernel", false)])),
            ["kernel"] => {
                let config = kernel.config();
                Some(Entry::json(&Settings {
                    data_folder: config.data_folder.as_deref(),
                    metadata_cache_bytes: config.metadata_cache_bytes,
                    content_cache_bytes: config.content_cache_bytes,
                    restarts_max: config.restarts_max,
                    restarts_within_ms: config.restarts_within.as_millis(),
                    drivers: kernel.catalogue().names().collect(),
                }))
            }
            _ => None,
        }
    }
}
