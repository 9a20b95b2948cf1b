//! Documents: small JSON texts in sealed objects. What they mean follows from the folder they lie in.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    frame::FrameError,
    ids::ObjectId,
    keys::KeyRing,
    object::{ObjectBuilder, ObjectError, ObjectKind, SealedObject},
    store::Store,
};

/// Writes a document as a new object; `path` makes its name from its identifier.
///
/// # Errors
/// When the store or the cipher fails.
pub async fn write<T: Serialize>(
    store: &Store,
    keys: &KeyRing,
    path: impl FnOnce(ObjectId) -> String,
    document: &T,
) -> Result<ObjectId, ObjectError> {
    let builder = ObjectBuilder::new(ObjectKind::Document, keys)?;
    let id = builder.identity().id;
    let path = path(id);
    let frame = |source| ObjectError::Frame {
        path: path.clone(),
        source,
    };
    let text = serde_json::to_vec(document)
        .map_err(|source| frame(FrameError::Compress(source.into())))?;
    let finished = builder.finish(&text).map_err(frame)?;
    store.put_new(&path, finished.rest).await?;
    Ok(id)
}

/// Reads a document.
///
/// # Errors
/// When it is missing or damaged, or says something this version does not understand.
pub async fn read<T: DeserializeOwned>(
    store: &Store,
    keys: &KeyRing,
    path: &str,
    id: ObjectId,
) -> Result<T, ObjectError> {
    let object = SealedObject::open(store, keys, path, ObjectKind::Document, id).await?;
    serde_json::from_slice(object.metadata()).map_err(|_| ObjectError::Damaged {
        path: path.to_owned(),
        what: "its text is not the kind of document its name says, or of a newer everpoint",
    })
}
