//! The repository looked into, and backups made to look older than they are: nobody can wait for weeks.

use anyhow::{Context, Result};
use everpoint_repository::{
    Repository, Store,
    frame::FrameDecoder,
    keys::Secret,
    layout,
    object::{ObjectBuilder, ObjectKind},
    store::Missing,
};
use jiff::SignedDuration;
use zeroize::Zeroizing;

use super::Everpoint;

impl Everpoint {
    /// The repository itself.
    pub async fn open(&self) -> Result<Repository> {
        let address = self.repository();
        let store = Store::open(address.to_str().context("a path")?, Missing::Refuse)?;
        let key = Zeroizing::new(std::fs::read(self.key_file())?);
        Ok(Repository::open(store, &Secret::KeyFile(key)).await?)
    }

    /// Writes a backup's manifest anew with all its times so many days earlier.
    pub async fn age(&self, backup: &str, days: i64) -> Result<()> {
        let repository = self.open().await?;
        let name = "main".parse()?;
        let manifests = repository.manifests(&name).await?;
        let found = manifests.into_iter().find(|(id, ..)| id.as_str() == backup);
        let (_, path, id) = found.context("no such backup")?;
        let (mut metadata, object) = repository.read_metadata(&path, id).await?;
        let age = SignedDuration::from_hours(24 * days);
        metadata.started_at = metadata.started_at.checked_sub(age)?;
        metadata.stopped_at = metadata.stopped_at.checked_sub(age)?;
        let mut aged = ObjectBuilder::new(ObjectKind::Manifest, repository.keys())?;
        let (mut decoder, mut encoder) = (FrameDecoder::new()?, repository.encoder()?);
        for frame in object.frames() {
            let contents = object.read(repository.store(), frame, &mut decoder).await?;
            aged.append(&contents, &mut encoder)?;
        }
        let aged_path = layout::manifest(&name, &metadata.id, aged.identity().id);
        let aged = aged.finish(&serde_json::to_vec(&metadata)?)?;
        repository.store().delete(&path).await?;
        repository.store().put_new(&aged_path, aged.rest).await?;
        Ok(())
    }
}
