//! Whose an object is: one judge for whoever reads manifests, so that they do not take the same folder differently.

use agents_core::{
    api::{Kind, VERSION},
    check::Check,
    kinds::{self, Visitor},
};

use super::{Document, ManifestFault, Rule, strict::nearest};

/// Every kind of this product with the group and version of its objects.
#[derive(Debug, Default)]
struct Kinds(Vec<(&'static str, String)>);

impl Visitor for Kinds {
    fn visit<K: Kind + Check>(&mut self) {
        self.0.push((K::KIND, format!("{}/{VERSION}", K::GROUP)));
    }
}

impl Document {
    /// The kind of an object of this product; `None` for one of another.
    ///
    /// # Errors
    /// It is no object, or of no kind or version of this product though it means to be.
    pub fn kind_of_ours(&self) -> Result<Option<&str>, Box<ManifestFault>> {
        let (Some(api_version), Some(kind)) = (self.api_version(), self.kind()) else {
            let missing = if self.api_version().is_none() { "apiVersion" } else { "kind" };
            return Err(Box::new(self.fault_at(missing, Rule::Document, "is missing or no text")));
        };
        let mut known = Kinds::default();
        kinds::visit(&mut known);
        let Kinds(known) = known;
        let group = |api_version: &str| api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
        let of_ours = known.iter().any(|(_, known)| group(known) == group(api_version));
        match known.iter().find(|(name, _)| *name == kind) {
            Some((_, wanted)) if wanted == api_version => Ok(Some(kind)),
            // Other products have kinds of the same name; the core group has none of ours.
            Some((_, wanted)) if of_ours || group(api_version).is_empty() => {
                let problem = format!("is the text {api_version:?}");
                let hint = Some(format!("{kind} has the apiVersion {wanted}"));
                Err(Box::new(self.fault_at("apiVersion", Rule::Document, problem).with_hint(hint)))
            }
            None if of_ours => {
                let hint = Some(nearest(kind, known.iter().map(|(kind, _)| *kind)));
                let problem = format!("{kind:?} is no kind of {}", group(api_version));
                Err(Box::new(self.fault_at("kind", Rule::Document, problem).with_hint(hint)))
            }
            _ => Ok(None),
        }
    }
}
