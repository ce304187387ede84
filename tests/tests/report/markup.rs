//! What a page consists of.

use std::collections::BTreeMap;

/// An element with its attributes and the text directly in it and in its children.
#[derive(Clone, Debug, Default)]
pub struct Element {
    pub name: String,
    pub attributes: BTreeMap<String, String>,
    pub text: String,
}

impl Element {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
}

/// Elements of a page that is well-formed XML but for its first line, in the order of their ends; what is wrong if it
/// is not. As far as the pages here go: no comments, no CDATA.
pub fn elements(page: &str) -> Result<Vec<Element>, String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>").ok_or("no document type")?.trim();
    let (mut open, mut found): (Vec<Element>, Vec<Element>) = (Vec::new(), Vec::new());
    loop {
        let (text, markup) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
        if text.contains('>') {
            return Err(format!("`>` in {text:?}"));
        }
        let text = unescaped(text)?;
        open.iter_mut().for_each(|element| element.text += &text);
        if markup.is_empty() {
            break;
        }
        let end = markup.find('>').ok_or("a tag without an end")?;
        let tag = &markup[1..end];
        rest = &markup[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            let element = open.pop().filter(|element| element.name == name);
            found.push(element.ok_or_else(|| format!("</{name}> closes nothing"))?);
            if open.is_empty() && !rest.is_empty() {
                return Err("text after the document".to_owned());
            }
            continue;
        }
        let whole = tag.strip_suffix('/');
        let (name, mut left) = whole.unwrap_or(tag).split_once(' ').unwrap_or((whole.unwrap_or(tag), ""));
        let mut element = Element { name: name.to_owned(), ..Element::default() };
        while !left.trim().is_empty() {
            let (key, after) = left.trim().split_once("=\"").ok_or_else(|| format!("attributes {left:?}"))?;
            let (value, after) = after.split_once('"').ok_or_else(|| format!("attributes {left:?}"))?;
            if element.attributes.insert(key.to_owned(), unescaped(value)?).is_some() || key.contains(['"', '\'', ' '])
            {
                return Err(format!("attribute {key:?}"));
            }
            left = after;
        }
        if whole.is_some() { found.push(element) } else { open.push(element) }
    }
    if open.is_empty() { Ok(found) } else { Err(format!("not closed: {:?}", open.last())) }
}

fn unescaped(text: &str) -> Result<String, String> {
    const ENTITIES: [(&str, char); 4] = [("amp;", '&'), ("lt;", '<'), ("gt;", '>'), ("quot;", '"')];
    let mut pieces = text.split('&');
    let mut plain = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        let entity = ENTITIES.iter().find_map(|(name, c)| Some((c, piece.strip_prefix(name)?)));
        let (c, piece) = entity.ok_or_else(|| format!("entity &{piece}"))?;
        plain.push(*c);
        plain += piece;
    }
    Ok(plain)
}

/// The text of the element with this `id`.
pub fn text_of<'a>(elements: &'a [Element], id: &str) -> &'a str {
    &elements.iter().find(|element| element.attribute("id") == Some(id)).unwrap().text
}
