//! What the library gives to speak to one server by.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;

/// How the library speaks to one server.
#[derive(Clone)]
pub(super) struct Handles {
    /// Repeats requests that may be repeated, with growing and random waits between them.
    pub(super) repeating: Arc<dyn ObjectStore>,
    /// Makes each request once. What asks for something to be made that is not there yet must not be repeated by itself: the repetition would find what the
    /// first one made.
    pub(super) once: Arc<dyn ObjectStore>,
    /// Listings by pages, where the server has them.
    pub(super) pages: Option<Arc<dyn PaginatedListStore>>,
    /// Whether the library can ask for a key that ends with a slash.
    pub(super) marks: bool,
    /// What servers of this kind take for something else in a key.
    pub(super) barred: &'static [char],
    /// Content in parts, where the server takes any.
    pub(super) parts: Option<Parts>,
    /// Deletions of many keys at once, where servers of this kind have them, and of how many at most.
    pub(super) bulk: Option<(Arc<dyn ObjectStore>, u16)>,
}

impl Handles {
    /// Those of a server that takes changes, of a client of each kind. `conditional` says whether the clients can put parts together under a condition.
    #[cfg_attr(
        not(any(feature = "s3", feature = "azure", feature = "gcs")),
        allow(dead_code, reason = "web servers take no changes")
    )]
    pub(super) fn of<T>(repeating: Arc<T>, once: Arc<T>, conditional: bool) -> Self
    where
        T: ObjectStore + PaginatedListStore + MultipartStore,
    {
        let parts = Some(Parts { repeating: repeating.clone(), once: once.clone(), conditional });
        Self {
            repeating: repeating.clone(),
            once,
            pages: Some(repeating),
            parts,
            marks: true,
            barred: &[],
            bulk: None,
        }
    }
}

/// How the library speaks of content in parts, once and again as [`Handles`].
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) repeating: Arc<dyn MultipartStore>,
    pub(super) once: Arc<dyn MultipartStore>,
    pub(super) conditional: bool,
}
