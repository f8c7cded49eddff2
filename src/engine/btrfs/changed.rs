//! Copies that somebody has changed since they were received. They are none any more, nobody lists them, and no policy
//! deletes them; a person may.

use super::BtrfsEngine;
use super::catalog::Catalog;
use super::record::{How, Record};
use crate::engine::{Changed, Context, EngineError};
use crate::host::Subvolume;
use crate::model::copy::Copy;

impl Changed for BtrfsEngine {
    fn copies(&self, cx: Context<'_>) -> Result<Vec<Copy>, EngineError> {
        Ok(changed(&self.open(cx)?)?.iter().map(|(record, _)| record.copy()).collect())
    }

    fn delete(&self, cx: Context<'_>, id: &str) -> Result<(), EngineError> {
        let catalog = self.open(cx)?;
        let one = changed(&catalog)?.into_iter().find(|(record, _)| record.name == id);
        let (record, found) = one.ok_or_else(|| EngineError::Refused {
            engine: "btrfs",
            repository: self.target.repository.clone(),
            detail: format!("{id} is no copy that was changed"),
        })?;
        let path = catalog.path(id);
        catalog.record(&Record { going: true, ..record })?;
        catalog.place.delete(&path, found)?;
        // Until it is gone for good, a power cut brings it back, and its record must say that it goes.
        catalog.flush()?;
        catalog.forget_deleted(&[])
    }
}

/// Each with the subvolume that it is by now: the very one that was received. Whatever else has come into the place of a
/// copy is somebody's own.
fn changed(catalog: &Catalog<'_>) -> Result<Vec<(Record, Subvolume)>, EngineError> {
    let (records, _) = catalog.all_records()?;
    let paths: Vec<_> = records.iter().map(|record| catalog.path(&record.name)).collect();
    let there = records.into_iter().zip(catalog.place.subvolumes(&paths)?);
    let there = there.filter_map(|(record, found)| Some((record, found?)));
    let is_changed =
        |(record, found): &(Record, Subvolume)| record.how(found) == Some(How::Changed);
    Ok(there.filter(is_changed).collect())
}
