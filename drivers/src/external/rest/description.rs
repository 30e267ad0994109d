//! What the description of an API says. Unknown fields are refused.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::description::{Described, Parameter};
use super::super::listing::{JsonFields, Naming};

/// An API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// `rest`.
    pub(super) connector: String,
    /// What it is, for who looks at the file.
    #[serde(default)]
    #[expect(dead_code, reason = "it is read by people")]
    pub(super) about: String,
    /// What a mount gives.
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Parameter>,
    /// What all URLs begin with, with parameters in it: `https://api.example/v1`.
    pub(super) base: String,
    /// Whether `http://` may be spoken with another machine than this one: anybody on the way can read it.
    #[serde(default)]
    pub(super) allow_http: bool,
    /// Sent with each request, with parameters in their values. No credentials.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// Who asks.
    pub(super) auth: Option<Auth>,
    /// What is asked to know whether the server is there and knows who asks: a `GET` that costs it little, with parameters in it. Any answer but a success is a failure of
    /// the mount. When not given, any answer to a `HEAD` of the base does that is no failure of the server's.
    pub(super) probe: Option<Request>,
    /// How much, and how long.
    #[serde(default)]
    pub(super) limits: Limits,
    /// How often.
    pub(super) rate: Option<Rate>,
    /// Which paths there are.
    pub(super) route: Vec<Route>,
}

impl Described for Description {
    fn connector(&self) -> &str {
        &self.connector
    }

    fn parameters(&self) -> &BTreeMap<String, Parameter> {
        &self.parameters
    }
}

/// Who asks. Each credential is where it is: `env:NAME`, `file:PATH`, `option:KEY`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Auth {
    /// A header of any name.
    Header {
        /// Its name.
        name: String,
        /// Its value, a credential.
        value: String,
        /// What stands before the credential: `Token `.
        #[serde(default)]
        before: String,
    },
    /// `Authorization: Bearer`.
    Bearer {
        /// The token, a credential.
        token: String,
    },
    /// `Authorization: Bearer`, with tokens that are asked for by a refresh token (RFC 6749, section 6) and kept in memory.
    OAuth2 {
        /// Where tokens are asked for, with parameters in it.
        token_url: String,
        /// The client, with parameters in it.
        client_id: String,
        /// Its secret, a credential, when it has one.
        client_secret: Option<String>,
        /// A credential. One that the server gives instead is used from then on, and kept in the data folder.
        refresh_token: String,
        /// What is asked for, when it is less than was allowed.
        scope: Option<String>,
    },
}

/// How much, and how long.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// How long one operation may take, with all that it repeats and waits for; 30000 when not given.
    pub(super) timeout_ms: Option<u64>,
    /// How often a request that may be repeated is; 3 when not given.
    pub(super) retries: Option<u32>,
    /// How many requests are under way at once; 8 when not given.
    pub(super) concurrency: Option<usize>,
    /// The most bytes of one answer, and of what is written; 16 MiB when not given.
    pub(super) body_bytes: Option<u64>,
    /// How much is remembered of answers that have validators; 16 MiB when not given, 0 for nothing.
    pub(super) cache_bytes: Option<u64>,
    /// The most pages of one listing; 100 when not given.
    pub(super) pages: Option<usize>,
    /// The most names of one listing; 10000 when not given.
    pub(super) items: Option<usize>,
}

/// How often may be asked: `requests` in `per_ms`, and `burst` of them at once.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    pub(super) requests: u32,
    pub(super) per_ms: u64,
    /// 1 when not given.
    pub(super) burst: Option<u32>,
}

/// Some paths, and what is asked for them. One that is read is a file, one that is listed a directory, one that is both either of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// Names with slashes between them: `notes/{id}.json`, `{path...}`.
    pub(super) path: String,
    /// How it is found out what is there.
    #[serde(default)]
    pub(super) stat: Stat,
    /// A `GET` whose answer is the content.
    pub(super) read: Option<Request>,
    /// A request with the content as its body.
    pub(super) write: Option<Write>,
    /// A request that takes it away.
    pub(super) delete: Option<Delete>,
    /// A `GET` whose answer is JSON with the names in it.
    pub(super) list: Option<List>,
}

/// How it is found out what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stat {
    /// By a `HEAD` where it is read.
    #[default]
    Head,
    /// By reading it. What has no ETag is told apart by its content then, and not by the second in which it changed.
    Read,
    /// By the listing of the directory above.
    Listing,
}

/// Where is asked. The names that a path says become parts of the URL, with all that has a meaning there encoded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    /// What follows the base, with a slash at the start.
    pub(super) url: String,
    /// The query.
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    /// The media type that is asked for, in the place of what `headers` says of it.
    pub(super) accept: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Write {
    /// Where it is read, when not given.
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    /// `PUT`, when not given. What is not `PUT` is repeated only when it certainly was not done.
    #[serde(default)]
    pub(super) method: WriteMethod,
    /// The media type of the body.
    pub(super) content_type: Option<String>,
    /// Whether the server honours `If-None-Match: *`: then it refuses to replace what is there when something new is to be made.
    #[serde(default)]
    pub(super) if_none_match: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum WriteMethod {
    #[default]
    Put,
    Post,
    Patch,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delete {
    /// Where it is read, when not given.
    pub(super) url: Option<String>,
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    /// `DELETE`, when not given. `POST` is repeated only when it certainly was not done.
    #[serde(default)]
    pub(super) method: DeleteMethod,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum DeleteMethod {
    #[default]
    Delete,
    Post,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    /// What follows the base, with a slash at the start.
    pub(super) url: String,
    #[serde(default)]
    pub(super) query: BTreeMap<String, String>,
    /// The media type that is asked for, in the place of what `headers` says of it.
    pub(super) accept: Option<String>,
    /// Where in the answer the names are, and what else there is of them.
    pub(super) fields: JsonFields,
    /// How names become names of paths.
    #[serde(default)]
    pub(super) names: Naming,
    /// Whether what it does not tell of a file is looked at, a request a file.
    #[serde(default)]
    pub(super) details: Details,
    /// How all of it is had; when not given it is one answer.
    pub(super) pages: Option<Pages>,
}

/// Where the size of a file and what tells its content from others comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Details {
    /// Each file of which the listing does not tell both is looked at.
    #[default]
    Each,
    /// The listing alone: of what it does not tell the size, that is told as 0.
    Listing,
}

/// How one page leads to the next.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum Pages {
    /// They have numbers. An empty one is the last, or one with less than `size` items.
    Page {
        /// The parameter of the query.
        parameter: String,
        /// The number of the first one; 1 when not given.
        first: Option<u64>,
        /// The parameter that says how many items a page has.
        size_parameter: Option<String>,
        /// How many those are.
        size: Option<u64>,
    },
    /// Each names the next, in a place of the answer (a JSON pointer); nothing there, or an empty text, is the end.
    Cursor {
        /// The parameter of the query.
        parameter: String,
        /// The place.
        next: String,
    },
    /// Each has the URL of the next in a place of the answer. It must be one of the same server.
    Url {
        /// The place.
        next: String,
    },
    /// Each has the URL of the next in the header `Link` (RFC 8288), as `rel="next"`. It must be one of the same server.
    Link {},
}
