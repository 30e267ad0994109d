//! Listings that come in pages: all of them, within bounds.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::time::Instant;

use nexus_kernel::hal::StoreError;
use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};
use serde_json::Value;

use super::super::failure::{of_the_backend, of_the_call};
use super::super::listing::text;
use super::super::tree::Listed;
use super::asks::ListAsks;
use super::client::Client;
use super::description::Pages;

const WHAT: &str = "listing";

/// How much of a listing is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) pages: usize,
    pub(super) items: usize,
}

/// The names in the listing at `first`; no more than `enough` are needed. One that has no end within the bounds is an error, and never half a listing.
pub(super) async fn listed(
    client: &Client,
    asks: &ListAsks,
    first: Url,
    path: &str,
    enough: usize,
    bounds: Bounds,
    deadline: Instant,
) -> Result<Listed, StoreError> {
    let wrong = |cause: String| of_the_backend(false, format!("{WHAT} {path:?}"), cause);
    // The server is well, and so is what is asked of other folders.
    let too_large = |cause: String| of_the_call(ErrorKind::FileTooLarge, format!("{WHAT} {path:?}"), cause);
    let (mut listed, mut seen, mut nth) = (Listed::default(), HashSet::new(), 0);
    let mut next = Some(page_url(&first, asks.pages.as_ref(), nth));
    while let Some(url) = next {
        if !seen.insert(url.clone()) {
            return Err(wrong("its pages lead in a circle".into()));
        }
        if seen.len() > bounds.pages {
            return Err(too_large(format!("it has more than {} pages", bounds.pages)));
        }
        let page = client.get(url.clone(), asks.place.accept.as_ref(), WHAT, path, deadline).await?;
        let answer: Value = match page.body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&page.body).map_err(|_| wrong("the answer is no JSON".into()))?,
        };
        let (items, count) = asks.fields.items(&answer, &asks.names).map_err(wrong)?;
        listed.items.extend(items);
        if listed.items.len() > bounds.items {
            return Err(too_large(format!("it has more than {} names", bounds.items)));
        }
        if listed.items.len() >= enough {
            break;
        }
        nth += 1;
        let other =
            |text: &str| same_server(&url, text).ok_or_else(|| wrong("it goes on at another server".into()));
        next = match &asks.pages {
            None => None,
            Some(Pages::Page { size, .. }) => {
                let is_last = count == 0 || size.is_some_and(|size| (count as u64) < size);
                (!is_last).then(|| page_url(&first, asks.pages.as_ref(), nth))
            }
            Some(Pages::Cursor { parameter, next }) => {
                let cursor = answer.pointer(next).and_then(text).filter(|cursor| !cursor.is_empty());
                cursor.map(|cursor| with_parameter(&first, parameter, &cursor))
            }
            Some(Pages::Url { next }) => {
                let found = answer.pointer(next).and_then(text).filter(|url| !url.is_empty());
                found.map(|found| other(&found)).transpose()?
            }
            Some(Pages::Link {}) => next_link(&page.headers).map(|found| other(&found)).transpose()?,
        };
    }
    Ok(listed)
}

/// The URL of the page that is the `nth`, from 0, where pages have numbers.
fn page_url(first: &Url, pages: Option<&Pages>, nth: u64) -> Url {
    let Some(Pages::Page { parameter, first: number, size_parameter, size }) = pages else {
        return first.clone();
    };
    let number = number.unwrap_or(1).saturating_add(nth);
    let url = with_parameter(first, parameter, &number.to_string());
    match (size_parameter, size) {
        (Some(parameter), Some(size)) => with_parameter(&url, parameter, &size.to_string()),
        _ => url,
    }
}

fn with_parameter(url: &Url, key: &str, value: &str) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().append_pair(key, value);
    url
}

/// The URL that `text` is where `at` was asked, when it is one of the same server: nobody else is shown who asks.
fn same_server(at: &Url, text: &str) -> Option<Url> {
    let url = at.join(text).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none();
    (url.origin() == at.origin() && is_plain).then_some(url)
}

/// The URL of the next page in the header `Link` (RFC 8288).
fn next_link(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(links).find_map(|(url, is_next)| is_next.then(|| url.to_owned()))
}

/// Each URL of a value, and whether it is that of the next page.
fn links(value: &str) -> Vec<(&str, bool)> {
    let (mut found, mut rest) = (Vec::new(), value);
    while let Some((_, after)) = rest.split_once('<') {
        let Some((url, after)) = after.split_once('>') else { break };
        // A comma separates links, but for one in quotes.
        let mut quoted = false;
        let end = after.find(|c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        });
        let (parameters, left) = after.split_at(end.unwrap_or(after.len()));
        let is_next = parameters.split(';').any(|parameter| {
            let Some((key, value)) = parameter.split_once('=') else { return false };
            let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
            key.trim().eq_ignore_ascii_case("rel") && relations.any(|it| it.eq_ignore_ascii_case("next"))
        });
        found.push((url, is_next));
        rest = left;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_the_links() {
        let check = |value: &str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(LINK, value.parse().unwrap())]);
            assert_eq!(next_link(&headers).as_deref(), expected, "{value}");
        };
        check(
            r#"<https://h/a?page=2>; rel="next", <https://h/a?page=9>; rel="last""#,
            Some("https://h/a?page=2"),
        );
        check(r#"<https://h/1>; rel="prev", </2,3>; title="a,b<c>"; rel=next"#, Some("/2,3"));
        check(r#"<https://h/1>; rel="first next""#, Some("https://h/1"));
        for none in
            ["", "<", "<https://h/1", "<https://h/1>", r#"<https://h/1>; rel="nextish""#, ">;rel=next"]
        {
            check(none, None);
        }
    }

    #[test]
    fn no_page_is_of_another_server() {
        let at = Url::parse("https://h.example/v1/list?x=1").unwrap();
        let same = |text: &str| same_server(&at, text).map(String::from);
        assert_eq!(same("?page=2").as_deref(), Some("https://h.example/v1/list?page=2"));
        assert_eq!(same("/v2").as_deref(), Some("https://h.example/v2"));
        for other in [
            "https://evil.example/",
            "http://h.example/",
            "//evil.example/x",
            "https://a:b@h.example/",
            "https://h.example:444/",
        ] {
            assert_eq!(same(other), None, "{other}");
        }
    }
}
