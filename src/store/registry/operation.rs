//! The purpose of a request, in the words of messages.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    ReadManifest,
    StoreManifest,
    DeleteImage,
    ListTags,
    ListReferrers,
    FindBlob,
    ReadBlob,
    UploadBlob,
    MountBlob,
    CancelUpload,
    GetToken,
}

impl Operation {
    /// Follows "denied" in a sentence.
    pub fn gerund(self) -> &'static str {
        match self {
            Self::ReadManifest => "reading the manifest",
            Self::StoreManifest => "storing the manifest",
            Self::DeleteImage => "deleting the image",
            Self::ListTags => "listing the tags",
            Self::ListReferrers => "listing what belongs to the image",
            Self::FindBlob => "looking for a blob",
            Self::ReadBlob => "reading a blob",
            Self::UploadBlob => "uploading a blob",
            Self::MountBlob => "mounting a blob",
            Self::CancelUpload => "cancelling an upload",
            Self::GetToken => "getting a token",
        }
    }

    /// The right that it takes; follows "the right to" in a sentence.
    pub fn right(self) -> &'static str {
        match self {
            Self::ReadManifest | Self::ListTags | Self::ListReferrers | Self::FindBlob | Self::ReadBlob => "pull from",
            Self::StoreManifest | Self::UploadBlob | Self::MountBlob | Self::CancelUpload => "push to",
            Self::DeleteImage => "delete in",
            Self::GetToken => "use",
        }
    }

    /// Whether it stores something.
    pub fn is_upload(self) -> bool {
        self.right() == "push to"
    }
}
