//! Routes as they are asked: what the description says, checked, with URLs that only need names.

use std::collections::BTreeMap;

use nexus_kernel::hal::StoreError;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::super::description::Reading;
use super::super::listing::{JsonFields, Naming};
use super::super::pattern::{Pattern, Vars};
use super::super::routes::{Route, Routes};
use super::super::template::{Filling, Template};
use super::super::tree::{Asks, Can};
use super::description::{self, DeleteMethod, Details, List, Pages, Request, Stat, Write, WriteMethod};

/// Where is asked.
#[derive(Debug)]
pub(super) struct Place {
    path: Template,
    query: Vec<(String, Template)>,
    /// The media type that is asked for.
    pub(super) accept: Option<HeaderValue>,
}

/// What is asked at one route.
#[derive(Debug)]
pub(super) struct RestAsks {
    pub(super) stat: Stat,
    pub(super) read: Option<Place>,
    pub(super) write: Option<WriteAsks>,
    pub(super) delete: Option<(Method, Place)>,
    pub(super) list: Option<ListAsks>,
}

#[derive(Debug)]
pub(super) struct WriteAsks {
    pub(super) place: Place,
    pub(super) method: Method,
    pub(super) content_type: Option<HeaderValue>,
    pub(super) if_none_match: bool,
}

#[derive(Debug)]
pub(super) struct ListAsks {
    pub(super) place: Place,
    pub(super) fields: JsonFields,
    pub(super) names: Naming,
    pub(super) pages: Option<Pages>,
    details: Details,
}

impl Asks for RestAsks {
    fn can(&self) -> Can {
        Can {
            read: self.read.is_some(),
            write: self.write.is_some(),
            delete: self.delete.is_some(),
            list: self.list.is_some(),
            exclusive: self.write.as_ref().is_some_and(|write| write.if_none_match),
            told_by_listing: self.stat == Stat::Listing,
            told_apart_by_time: self.stat != Stat::Read,
            looks_at_each: self.list.as_ref().is_none_or(|list| list.details == Details::Each),
        }
    }
}

/// All routes of a description.
pub(super) fn routes(
    reading: &Reading,
    base: &Url,
    described: Vec<description::Route>,
) -> Result<Routes<RestAsks>, StoreError> {
    let maker = Maker { reading, base };
    let routes = described.into_iter().map(|route| {
        let field = format!("route {:?}", route.path);
        let pattern = reading.pattern(&format!("{field}: path"), &route.path)?;
        let asks = maker.asks(&field, &pattern, route)?;
        Ok(Route { pattern, asks })
    });
    reading.routes(routes.collect::<Result<_, StoreError>>()?)
}

/// What the description names to be asked for whether the server is there.
pub(super) fn probe(
    reading: &Reading,
    base: &Url,
    described: Option<Request>,
) -> Result<Option<Place>, StoreError> {
    let Some(Request { url, query, accept }) = described else { return Ok(None) };
    let maker = Maker { reading, base };
    // It is of no path, so nothing but parameters has a place in it.
    let mut place = maker.place("probe", &reading.pattern("probe", "probe")?, &url, &query)?;
    place.accept = maker.media_type("probe.accept", accept)?;
    Ok(Some(place))
}

struct Maker<'a> {
    reading: &'a Reading,
    base: &'a Url,
}

impl Maker<'_> {
    fn asks(
        &self,
        field: &str,
        pattern: &Pattern,
        route: description::Route,
    ) -> Result<RestAsks, StoreError> {
        if route.read.is_none() && route.list.is_none() {
            return Err(self
                .reading
                .wrong(field, "it needs read, which makes it a file, or list, which makes it a directory"));
        }
        let at = route.read.as_ref().map(|read| read.url.clone());
        let place = |name: &str, url: Option<String>, query: &BTreeMap<String, String>| {
            let name = format!("{field}: {name}");
            let Some(url) = url.or_else(|| at.clone()) else {
                return Err(self.reading.wrong(&name, "it needs url: nothing is read there"));
            };
            self.place(&name, pattern, &url, query)
        };
        let read = route.read.map(|Request { url, query, accept }| {
            let mut place = place("read", Some(url), &query)?;
            place.accept = self.media_type(&format!("{field}: read.accept"), accept)?;
            Ok(place)
        });
        let read = read.transpose()?;
        let write = route.write.map(|write| self.write(field, &place, write)).transpose()?;
        let delete = route.delete.map(|delete| {
            let method = match delete.method {
                DeleteMethod::Delete => Method::DELETE,
                DeleteMethod::Post => Method::POST,
            };
            Ok((method, place("delete", delete.url, &delete.query)?))
        });
        let list = route.list.map(|list| self.list(&format!("{field}: list"), &place, list)).transpose()?;
        Ok(RestAsks { stat: route.stat, read, write, delete: delete.transpose()?, list })
    }

    fn write(
        &self,
        field: &str,
        place: &impl Fn(&str, Option<String>, &BTreeMap<String, String>) -> Result<Place, StoreError>,
        write: Write,
    ) -> Result<WriteAsks, StoreError> {
        let method = match write.method {
            WriteMethod::Put => Method::PUT,
            WriteMethod::Post => Method::POST,
            WriteMethod::Patch => Method::PATCH,
        };
        Ok(WriteAsks {
            place: place("write", write.url, &write.query)?,
            method,
            content_type: self.media_type(&format!("{field}: write.content_type"), write.content_type)?,
            if_none_match: write.if_none_match,
        })
    }

    fn list(
        &self,
        field: &str,
        place: &impl Fn(&str, Option<String>, &BTreeMap<String, String>) -> Result<Place, StoreError>,
        list: List,
    ) -> Result<ListAsks, StoreError> {
        let is_pointer = |pointer: &str| pointer.is_empty() || pointer.starts_with('/');
        let next = match &list.pages {
            Some(Pages::Cursor { next, .. } | Pages::Url { next }) => Some(("pages.next", next.as_str())),
            _ => None,
        };
        let fields = list.fields.pointers().map(|(name, pointer)| (format!("fields.{name}"), pointer));
        let mut pointers = fields.chain(next.map(|(name, pointer)| (name.to_owned(), pointer)));
        if let Some((name, pointer)) = pointers.find(|(_, pointer)| !is_pointer(pointer)) {
            let why = format!("{pointer:?} is no JSON pointer: it begins with a slash");
            return Err(self.reading.wrong(&format!("{field}: {name}"), why));
        }
        drop(pointers);
        if let Some(Pages::Page { size_parameter, size, .. }) = &list.pages
            && (size_parameter.is_some() && size.is_none() || *size == Some(0))
        {
            return Err(self
                .reading
                .wrong(&format!("{field}: pages.size"), "it must be given, and not be 0"));
        }
        let mut place = place("list", Some(list.url), &list.query)?;
        place.accept = self.media_type(&format!("{field}.accept"), list.accept)?;
        Ok(ListAsks {
            place,
            fields: list.fields,
            names: list.names,
            pages: list.pages,
            details: list.details,
        })
    }

    fn media_type(&self, field: &str, text: Option<String>) -> Result<Option<HeaderValue>, StoreError> {
        let wrong = |_| self.reading.wrong(field, "it cannot be a header");
        text.map(|text| HeaderValue::from_str(&text).map_err(wrong)).transpose()
    }

    fn place(
        &self,
        field: &str,
        pattern: &Pattern,
        url: &str,
        query: &BTreeMap<String, String>,
    ) -> Result<Place, StoreError> {
        if !url.is_empty() && !url.starts_with('/') {
            return Err(self
                .reading
                .wrong(&format!("{field}: url"), "it must begin with a slash: it follows the base"));
        }
        let path = self.reading.template(&format!("{field}: url"), url, pattern)?;
        let query = query.iter().map(|(key, text)| {
            Ok((key.clone(), self.reading.template(&format!("{field}: query.{key}"), text, pattern)?))
        });
        let place = Place { path, query: query.collect::<Result<_, StoreError>>()?, accept: None };
        // As a name that means nothing would be asked for: what is between the places must be a URL.
        let plain: Vars = pattern.variables().map(|name| (name.to_owned(), vec!["x".to_owned()])).collect();
        match place.url(self.base, &plain, &self.reading.parameters) {
            Ok(_) => Ok(place),
            Err(_) => {
                let why =
                    "it is no path of a URL: what has a meaning there is written %XX, and a query in query";
                Err(self.reading.wrong(&format!("{field}: url"), why))
            }
        }
    }
}

impl Place {
    /// The URL for a path. No name changes where it leads but where its own place is: what it is made of is encoded, and `.` and `..`, which names of URLs
    /// can be made of by what stands beside a place, are refused.
    pub(super) fn url(
        &self,
        base: &Url,
        vars: &Vars,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Url, StoreError> {
        let path = self.path.filled(vars, parameters, |filling| match filling {
            Filling::Given(text) => encoded(text),
            Filling::Path(names) => names.iter().map(|name| encoded(name)).collect::<Vec<_>>().join("/"),
        });
        let path = [base.path().trim_end_matches('/'), &path].concat();
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let mut url = base.clone();
        url.set_path(&path);
        // What the URL does not leave as it is, it understands in another way.
        if url.path() != path || path.split('/').any(|name| matches!(name, "." | "..")) {
            return Err(StoreError::Escapes { what: path });
        }
        if !self.query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            for (key, template) in &self.query {
                pairs.append_pair(key, &template.plain(vars, parameters));
            }
        }
        Ok(url)
    }
}

/// `text` with all of it encoded that could mean something in a URL or a form.
pub(super) fn encoded(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

/// A header of the description.
pub(super) fn header(reading: &Reading, field: &str, name: &str) -> Result<HeaderName, StoreError> {
    name.parse().map_err(|_| reading.wrong(field, format!("{name:?} is no name of a header")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn url(path: &str, names: &[&str]) -> Result<String, StoreError> {
        let known = BTreeSet::from(["n".to_owned()]);
        let template = |text| Template::parse(text, &BTreeMap::new(), &known).unwrap();
        let place = Place { path: template(path), query: vec![("q".into(), template("{n}"))], accept: None };
        let vars = Vars::from([("n".to_owned(), names.iter().map(|name| (*name).to_owned()).collect())]);
        let base = Url::parse("http://h.example:81/v1/").unwrap();
        place.url(&base, &vars, &BTreeMap::new()).map(String::from)
    }

    #[test]
    fn a_name_is_one_name_of_the_url_whatever_it_is() {
        for (name, expected) in [
            ("a", "a"),
            ("a?b#c&d=e", "a%3Fb%23c%26d%3De"),
            ("%2e%2e", "%252e%252e"),
            ("..%2F..", "..%252F.."),
            ("a\nb\r\\c", "a%0Ab%0D%5Cc"),
            ("ä@:", "%C3%A4%40%3A"),
            ("...", "..."),
            ("http://x", "http%3A%2F%2Fx"),
        ] {
            let found = url("/f/{n}/end", &[name]).unwrap();
            assert!(found.starts_with(&format!("http://h.example:81/v1/f/{expected}/end?q=")), "{found}");
            assert_eq!(found.matches(['?', '#', '&']).count(), 1, "{found}");
        }
        assert!(url("/f/{n}", &["a", "b c"]).unwrap().starts_with("http://h.example:81/v1/f/a/b%20c?"));
        assert!(url("/{n}", &[]).unwrap().starts_with("http://h.example:81/v1/?"));
    }

    #[test]
    fn no_name_leads_elsewhere() {
        for (path, name) in
            [("/f/{n}", "."), ("/f/{n}", ".."), ("/f/.{n}", "."), ("/f/%2e{n}/x", "."), ("/f/{n}.", ".")]
        {
            assert!(matches!(url(path, &[name]), Err(StoreError::Escapes { .. })), "{path} {name}");
        }
    }
}
