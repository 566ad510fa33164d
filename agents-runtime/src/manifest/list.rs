//! Lists of objects, as `kubectl get -o yaml` and `agents run -o json` print them: their items stand for themselves.
//! Pure.

use super::{
    Document, ManifestFault, Rule,
    tree::{Member, Node, Tree},
};

/// Deepest list in a list.
const MAX_DEPTH: usize = 8;

/// The objects of a document: its items when it is a list, else itself. What is no object is a fault.
pub(super) fn items(document: Document) -> (Vec<Document>, Vec<ManifestFault>) {
    let (mut objects, mut faults) = (Vec::new(), Vec::new());
    unfold(document, 0, &mut objects, &mut faults);
    (objects, faults)
}

fn unfold(mut document: Document, depth: usize, objects: &mut Vec<Document>, faults: &mut Vec<ManifestFault>) {
    const KNOWN: [&str; 4] = ["apiVersion", "kind", "metadata", "items"];
    if !matches!(document.node.value, Tree::Map(_)) {
        let problem = format!("is {}; an object is wanted", document.node.value.describe());
        faults.push(document.fault(document.node.place, "", Rule::Document, problem));
        return;
    }
    let Some(of) = document.kind().and_then(|kind| kind.strip_suffix("List")).map(str::to_owned) else {
        objects.push(document);
        return;
    };
    match document.node.get("items").map(|items| &items.value) {
        Some(Tree::List(_)) => {}
        // Another product may have a kind whose name ends so.
        _ if !of.is_empty() => {
            objects.push(document);
            return;
        }
        // As a list without items is written by some programs.
        Some(Tree::Null) => return,
        None => {
            faults.push(document.fault(document.node.place, "items", Rule::Required, "is missing"));
            return;
        }
        Some(other) => {
            let problem = format!("is {}; a list is wanted", other.describe());
            faults.push(document.fault_at("items", Rule::Type, problem));
            return;
        }
    }
    if depth >= MAX_DEPTH {
        let problem = format!("is nested more than {MAX_DEPTH} lists deep");
        faults.push(document.fault_at("items", Rule::Bounds, problem));
        return;
    }
    faults.extend(document.unknown_members(&KNOWN));
    let api_version = document.node.get("apiVersion").cloned();
    for (n, mut node) in take_items(&mut document.node).into_iter().enumerate() {
        if !of.is_empty() {
            complete(&mut node, &of, api_version.as_ref());
        }
        let path = match document.path.as_str() {
            "" => format!("items[{n}]"),
            outer => format!("{outer}.items[{n}]"),
        };
        let item = Document { path, node, ..document.header() };
        unfold(item, depth + 1, objects, faults);
    }
}

fn take_items(list: &mut Node) -> Vec<Node> {
    let Tree::Map(members) = &mut list.value else { return vec![] };
    let items = members.iter_mut().find(|member| member.name == "items").map(|member| &mut member.node.value);
    match items {
        Some(Tree::List(items)) => std::mem::take(items),
        _ => vec![],
    }
}

/// Items of a list of one kind need not say what they are.
fn complete(item: &mut Node, kind: &str, api_version: Option<&Node>) {
    let place = item.place;
    let Tree::Map(members) = &mut item.value else { return };
    if members.iter().any(|member| member.name == "kind") {
        return;
    }
    let mut add = |name: &str, value: Tree| {
        members.push(Member { name: name.to_owned(), place, node: Node { place, value } });
    };
    add("kind", Tree::Text(kind.to_owned()));
    if let Some(version) = api_version {
        add("apiVersion", version.value.clone());
    }
}

impl Document {
    /// Where it comes from, without what it says.
    fn header(&self) -> Self {
        let Self { file, folder, number, path, node } = self;
        Self {
            file: file.clone(),
            folder: folder.clone(),
            number: *number,
            path: path.clone(),
            node: Node { place: node.place, value: Tree::Null },
        }
    }
}
