//! What the description of a program says. Unknown fields are refused.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::description::{Described, Parameter};
use super::super::listing::{JsonFields, Naming, Records};

/// A program.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// `command`.
    pub(super) connector: String,
    /// What it is, for who looks at the file.
    #[serde(default)]
    #[expect(dead_code, reason = "it is read by people")]
    pub(super) about: String,
    /// What a mount gives.
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Parameter>,
    /// The program: a path of the host, or a name that is looked for in `PATH`; with parameters in it. It is no shell's business.
    pub(super) program: String,
    /// The folder of the host that it works in, with parameters in it; that of the kernel's process when not given.
    pub(super) folder: Option<String>,
    /// Its environment, with parameters in the values: this, `secrets`, and `PATH` of the kernel's process unless another is given. No credentials.
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
    /// Variables that are credentials, each where it is: `env:NAME`, `file:PATH`, `option:KEY`. There are none among arguments: all of the host can see those.
    #[serde(default)]
    pub(super) secrets: BTreeMap<String, String>,
    /// How much, and how long.
    #[serde(default)]
    pub(super) limits: Limits,
    /// What it means that it ends otherwise than with 0: the first that fits counts. What none fits is a failure of that one call; of a write or a deletion nobody
    /// knows then what became of it. A failure of the mount, of which a few in a row close it for a while, is only that it cannot be started, that its time is up,
    /// or what `broken` says.
    #[serde(default)]
    pub(super) exit: Vec<Exit>,
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

/// How much, and how long.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// How long one operation may take, with all programs that it runs; 30000 when not given. What runs then is killed.
    pub(super) timeout_ms: Option<u64>,
    /// How many programs run at once; 4 when not given.
    pub(super) concurrency: Option<usize>,
    /// The most bytes that one may write to its standard output, and likewise to its standard error; 16 MiB when not given.
    pub(super) output_bytes: Option<u64>,
    /// The most bytes that may be written to its standard input; 16 MiB when not given.
    pub(super) input_bytes: Option<u64>,
    /// The most names of one listing; 100000 when not given.
    pub(super) items: Option<usize>,
}

/// What an end means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exit {
    /// The exit code; any other than 0 when not given.
    pub(super) code: Option<i32>,
    /// What the first 4096 bytes of its standard error have in them; anything when not given.
    pub(super) stderr: Option<String>,
    /// What it means. Each but `ok` says that nothing was changed.
    pub(super) means: Meaning,
}

/// What an end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Meaning {
    /// It is no failure.
    Ok,
    /// There is no such thing.
    NotFound,
    /// There is one already.
    Exists,
    /// Something on the way is a file.
    NotADirectory,
    /// It is a directory.
    IsADirectory,
    /// It is not allowed.
    Denied,
    /// Somebody else has it.
    Busy,
    /// It cannot be done there at all.
    Unsupported,
    /// What is asked for makes no sense.
    Invalid,
    /// What it works on does not work: counts as a failure of the mount.
    Broken,
}

/// Some paths, and what is run for them. One that is read is a file, one that is listed a directory, one that is both either of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// Names with slashes between them: `{rev}/{path...}`.
    pub(super) path: String,
    /// How it is found out what is there.
    #[serde(default)]
    pub(super) stat: Stat,
    /// What writes the content to its standard output.
    pub(super) read: Option<Run>,
    /// What reads the content from its standard input.
    pub(super) write: Option<Run>,
    /// What takes it away.
    pub(super) delete: Option<Run>,
    /// What writes the names to its standard output.
    pub(super) list: Option<List>,
}

/// How it is found out what is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stat {
    /// By reading it.
    #[default]
    Read,
    /// By the listing of the directory above.
    Listing,
}

/// The arguments. Each is one argument, whatever stands in its places. One that would begin with a dash because of a path is refused, unless `--` stands alone
/// before it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Run {
    pub(super) args: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    pub(super) args: Vec<String>,
    /// The output is JSON.
    pub(super) json: Option<JsonFields>,
    /// The output is text.
    pub(super) records: Option<Records>,
    /// How names become names of paths.
    #[serde(default)]
    pub(super) names: Naming,
    /// Whether what it does not tell of a file is looked at, a program a file.
    #[serde(default)]
    pub(super) details: Details,
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
