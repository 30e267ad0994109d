//! The relative paths that path-addressed drivers are given.

use nexus_kernel::hal::StoreError;
#[cfg(any(all(feature = "local", unix), feature = "connectors"))]
use nexus_messages::syscall::MountSpec;

/// The components of `path`; none for the mount point itself.
pub(crate) fn components(path: &str) -> Result<Vec<&str>, StoreError> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let bad = |why: &str| StoreError::BadOption { why: format!("{path:?} {why}") };
    path.split('/')
        .map(|name| match name {
            ".." => Err(StoreError::Escapes { what: path.into() }),
            "" if path.starts_with('/') => Err(StoreError::Escapes { what: path.into() }),
            "" | "." => Err(bad("has an empty component")),
            _ if name.contains('\0') => Err(bad("contains NUL")),
            _ => Ok(name),
        })
        .collect()
}

/// The last component of `path` and those before it. The mount point itself has none and cannot be made, moved or removed.
pub(crate) fn split_last(path: &str) -> Result<(Vec<&str>, &str), StoreError> {
    let mut parents = components(path)?;
    let name = parents
        .pop()
        .ok_or_else(|| StoreError::BadOption { why: "the mount point itself cannot be changed".into() })?;
    Ok((parents, name))
}

/// `spec` with the path of the host that the option `key` gives made absolute: another process may work elsewhere.
#[cfg(any(all(feature = "local", unix), feature = "connectors"))]
pub(crate) fn with_absolute(mut spec: MountSpec, key: &str) -> MountSpec {
    if let Some(given) = spec.options.get_mut(key)
        && let Ok(absolute) = std::path::absolute(&*given)
        && let Ok(absolute) = absolute.into_os_string().into_string()
    {
        *given = absolute;
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_folder() {
        for escaping in ["..", "a/..", "../a", "a/../../b", "/", "/etc/passwd", "//"] {
            assert!(matches!(components(escaping), Err(StoreError::Escapes { .. })), "{escaping}");
        }
        for bad in [".", "a//b", "a/", "a/./b", "a\0b"] {
            assert!(matches!(components(bad), Err(StoreError::BadOption { .. })), "{bad}");
        }
        assert_eq!(components("a/b..c/...").unwrap(), ["a", "b..c", "..."]);
        assert_eq!(components("").unwrap(), [""; 0]);
        assert!(split_last("").is_err());
    }
}
