//! Which server, and how it is told the bucket.

use http::Uri;

use crate::store::{StoreError, cloud::Environment};

/// Where the service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// That of Amazon, in the region.
    Amazon,
    /// One that the user names, without a slash at the end. It is told the bucket in the path, as all such servers can be.
    Named(String),
}

impl Endpoint {
    /// The one of `environment` (AWS SDKs and Tools Reference Guide, "Service-specific endpoints").
    pub fn of(environment: &Environment) -> Result<Self, StoreError> {
        let variable =
            ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find(|name| environment.get(name).is_some());
        let Some(variable) = variable else { return Ok(Self::Amazon) };
        let address = environment.get(variable).unwrap_or_default();
        let valid = address.parse::<Uri>().is_ok_and(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.host().is_some()
                && url.query().is_none()
                && !address.contains('@')
        });
        if !valid {
            let problem = format!(
                "{}: it has to be the address of the service, for example http://minio.tools.svc:9000",
                environment.name_of(variable)
            );
            return Err(StoreError::Settings { problem });
        }
        Ok(Self::Named(address.trim_end_matches('/').to_owned()))
    }

    /// The address of `bucket`, without a slash at the end.
    pub fn bucket_url(&self, bucket: &str, region: &str) -> String {
        match self {
            Self::Named(address) => format!("{address}/{bucket}"),
            // The certificate is for one name below the service's.
            Self::Amazon if bucket.contains('.') => format!("https://{}/{bucket}", amazon(region)),
            Self::Amazon => format!("https://{bucket}.{}", amazon(region)),
        }
    }

    /// How messages name the server.
    pub fn name(&self, region: &str) -> String {
        match self {
            Self::Named(address) => address.split_once("://").map_or(address.as_str(), |(_, rest)| rest).to_owned(),
            Self::Amazon => amazon(region),
        }
    }
}

fn amazon(region: &str) -> String {
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("s3.{region}.amazonaws.com{china}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(variables: &[(&str, &str)]) -> Result<Endpoint, String> {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Endpoint::of(&Environment::new(variables.collect(), None)).map_err(|error| error.to_string())
    }

    #[test]
    fn buckets_of_amazon() {
        let amazon = endpoint(&[]).unwrap();
        assert_eq!(amazon.bucket_url("b", "eu-west-1"), "https://b.s3.eu-west-1.amazonaws.com");
        assert_eq!(amazon.bucket_url("a.b", "eu-west-1"), "https://s3.eu-west-1.amazonaws.com/a.b");
        assert_eq!(amazon.bucket_url("b", "cn-north-1"), "https://b.s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(amazon.name("eu-west-1"), "s3.eu-west-1.amazonaws.com");
    }

    #[test]
    fn buckets_of_others() {
        let named =
            endpoint(&[("AWS_ENDPOINT_URL", "https://wrong"), ("AWS_ENDPOINT_URL_S3", "http://minio:9000/")]).unwrap();
        assert_eq!(named.bucket_url("a.b", "eu-west-1"), "http://minio:9000/a.b");
        assert_eq!(named.name("eu-west-1"), "minio:9000");
        for wrong in ["minio:9000", "ftp://minio", "http://user:password@minio", "http://minio/?x", "http://"] {
            let error = endpoint(&[("AWS_ENDPOINT_URL", wrong)]).unwrap_err();
            assert_eq!(
                error,
                "AWS_ENDPOINT_URL: it has to be the address of the service, for example http://minio.tools.svc:9000"
            );
        }
    }
}
