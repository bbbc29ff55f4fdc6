//! The other stores, each a server on the loopback interface (tests/support), for rows that are asked for by name.

use std::path::{Path, PathBuf};

use support::{
    buckets::{Gcs, S3},
    rsync::Rsyncd,
};

use crate::registry::bytes_in;

const BUCKET: &str = "bench";

/// Those that there are here.
pub struct Stores {
    s3: Option<S3>,
    gcs: Option<Gcs>,
    rsyncd: Option<Rsyncd>,
    dir: PathBuf,
}

impl Stores {
    /// Starts them; the folder lies in `dir`, what servers hold below `TMPDIR`.
    pub fn start(dir: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (s3, gcs, rsyncd) =
            runtime.block_on(async { (S3::start().await, Gcs::start().await, Rsyncd::start().await) });
        s3.iter().for_each(|server| server.make_bucket(BUCKET));
        gcs.iter().for_each(|server| server.make_bucket(BUCKET));
        Self { s3, gcs, rsyncd, dir: Path::new(dir).join("folder") }
    }

    /// Where each is, by the variable that the commands of the rows have, and how to reach it.
    pub fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![("DIR_IMAGE", format!("dir://{}", self.dir.display()))];
        if let Some(server) = &self.s3 {
            env.extend([
                ("S3_IMAGE", format!("s3://{BUCKET}")),
                ("AWS_ACCESS_KEY_ID", server.key.id.clone()),
                ("AWS_SECRET_ACCESS_KEY", server.key.secret.clone()),
                ("AWS_REGION", "us-east-1".to_owned()),
                ("AWS_ENDPOINT_URL_S3", format!("http://{}", server.address)),
                ("RCLONE_CONFIG_S3_TYPE", "s3".to_owned()),
                ("RCLONE_CONFIG_S3_PROVIDER", "Other".to_owned()),
                ("RCLONE_CONFIG_S3_ENV_AUTH", "true".to_owned()),
                ("RCLONE_CONFIG_S3_REGION", "us-east-1".to_owned()),
                ("RCLONE_CONFIG_S3_ENDPOINT", format!("http://{}", server.address)),
            ]);
        }
        if let Some(server) = &self.gcs {
            env.extend([("GS_IMAGE", format!("gs://{BUCKET}")), ("STORAGE_EMULATOR_HOST", server.address.clone())]);
        }
        env.extend(self.rsyncd.iter().map(|server| ("RSYNC_IMAGE", format!("rsync://{}/ci/bench", server.address))));
        env
    }

    /// Bytes of what they hold, where that can be seen: the server of Google's protocol keeps it in memory.
    pub fn stored(&self) -> u64 {
        self.folders().map(|folder| bytes_in(&folder)).sum()
    }

    /// Forgets all of it.
    pub fn wipe(&self) {
        for folder in self.folders() {
            let _ = std::fs::remove_dir_all(&folder);
            let _ = std::fs::create_dir(&folder);
        }
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let s3 = self.s3.as_ref().and_then(S3::folder).map(|folder| folder.join(BUCKET));
        let of_servers = [s3, self.rsyncd.as_ref().map(Rsyncd::folder)];
        of_servers.into_iter().flatten().chain([self.dir.clone()])
    }
}
