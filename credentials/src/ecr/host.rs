//! What the name of an ECR registry says: whose it is and where. A pure parser; nothing here asks anybody.
//!
//! Sources: the names that amazon-ecr-credential-helper and Kubernetes' ecr-credential-provider take
//! (`ecr-login/api/client.go`, `cmd/ecr-credential-provider/main.go`), and the suffixes of each partition in the AWS SDKs'
//! `partitions.json` (`dnsSuffix`, `dualStackDnsSuffix`; a dual-stack registry has `on.` where an API has `api.`). A name
//! whose region is of another partition than its suffix is none of theirs.

/// Longest region that is taken, in bytes. The longest of today has 15 (`us-isof-south-1`).
const MAX_REGION: usize = 32;

/// Digits of an AWS account's number.
const ACCOUNT_LEN: usize = 12;

/// A part of AWS with accounts and names of its own.
struct Partition {
    name: &'static str,
    /// How its regions begin; empty: any that no other partition claims.
    regions: &'static str,
    /// What follows the region in a registry's name.
    suffix: &'static str,
    /// The same in a name that has IPv6 addresses too.
    dual_stack: &'static str,
}

/// All partitions; the one that takes any region is the last.
const PARTITIONS: [Partition; 8] = [
    partition("aws-cn", "cn-", "amazonaws.com.cn", "on.amazonwebservices.com.cn"),
    partition("aws-us-gov", "us-gov-", "amazonaws.com", "on.aws"),
    partition("aws-iso", "us-iso-", "c2s.ic.gov", "on.aws.ic.gov"),
    partition("aws-iso-b", "us-isob-", "sc2s.sgov.gov", "on.aws.scloud"),
    partition("aws-iso-e", "eu-isoe-", "cloud.adc-e.uk", "on.cloud-aws.adc-e.uk"),
    partition("aws-iso-f", "us-isof-", "csp.hci.ic.gov", "on.aws.hci.ic.gov"),
    partition("aws-eusc", "eusc-", "amazonaws.eu", "on.amazonwebservices.eu"),
    partition("aws", "", "amazonaws.com", "on.aws"),
];

const fn partition(
    name: &'static str,
    regions: &'static str,
    suffix: &'static str,
    dual_stack: &'static str,
) -> Partition {
    Partition { name, regions, suffix, dual_stack }
}

/// A private ECR registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EcrHost {
    /// The account that it belongs to: twelve digits.
    pub account: String,
    /// Its region: `eu-central-1`.
    pub region: String,
    /// The region's partition: `aws`, `aws-cn`, `aws-us-gov`, …
    pub partition: &'static str,
    /// Whether it is reached by FIPS endpoints.
    pub fips: bool,
    /// Whether its name has IPv6 addresses.
    pub dual_stack: bool,
}

impl EcrHost {
    /// Reads a registry's host, as image references have it; `None` when it is no private ECR registry. (ECR Public, at
    /// `public.ecr.aws`, is none: it gives tokens to anybody.)
    pub fn parse(host: &str) -> Option<Self> {
        let host = host.strip_suffix(":443").unwrap_or(host).to_ascii_lowercase();
        let (account, rest) = host.split_once('.')?;
        let digits = account.len() == ACCOUNT_LEN && account.bytes().all(|byte| byte.is_ascii_digit());
        let (dual_stack, service) = match rest.strip_prefix("dkr-") {
            Some(service) => (true, service),
            None => (false, rest.strip_prefix("dkr.")?),
        };
        let (fips, rest) = match service.strip_prefix("ecr-fips.") {
            Some(rest) => (true, rest),
            None => (false, service.strip_prefix("ecr.")?),
        };
        let (region, suffix) = rest.split_once('.')?;
        let sane = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let region_is_sane = !region.is_empty() && region.len() <= MAX_REGION && region.bytes().all(sane);
        let partition = PARTITIONS.iter().find(|partition| region.starts_with(partition.regions))?;
        let want = if dual_stack { partition.dual_stack } else { partition.suffix };
        (digits && region_is_sane && suffix == want).then(|| Self {
            account: account.to_owned(),
            region: region.to_owned(),
            partition: partition.name,
            fips,
            dual_stack,
        })
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
