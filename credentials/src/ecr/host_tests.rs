//! Tests of registry names: the tables that the parser was made from, and the SDK's own as an oracle.

use aws_sdk_ecr::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use proptest::prelude::*;

use super::EcrHost;

const ACCOUNT: &str = "123456789012";

fn host(region: &str, partition: &'static str, fips: bool, dual_stack: bool) -> Option<EcrHost> {
    Some(EcrHost { account: ACCOUNT.into(), region: region.into(), partition, fips, dual_stack })
}

#[test]
fn names_say_account_region_and_partition() {
    for (name, want) in [
        ("dkr.ecr.us-east-1.amazonaws.com", host("us-east-1", "aws", false, false)),
        ("dkr.ecr.eu-central-1.amazonaws.com:443", host("eu-central-1", "aws", false, false)),
        ("DKR.ECR.ap-southeast-5.AmazonAWS.com", host("ap-southeast-5", "aws", false, false)),
        ("dkr.ecr-fips.us-west-2.amazonaws.com", host("us-west-2", "aws", true, false)),
        ("dkr-ecr.us-west-2.on.aws", host("us-west-2", "aws", false, true)),
        ("dkr-ecr-fips.us-east-2.on.aws", host("us-east-2", "aws", true, true)),
        ("dkr.ecr.cn-north-1.amazonaws.com.cn", host("cn-north-1", "aws-cn", false, false)),
        ("dkr-ecr.cn-northwest-1.on.amazonwebservices.com.cn", host("cn-northwest-1", "aws-cn", false, true)),
        ("dkr.ecr.us-gov-west-1.amazonaws.com", host("us-gov-west-1", "aws-us-gov", false, false)),
        ("dkr.ecr-fips.us-gov-east-1.amazonaws.com", host("us-gov-east-1", "aws-us-gov", true, false)),
        ("dkr-ecr-fips.us-gov-east-1.on.aws", host("us-gov-east-1", "aws-us-gov", true, true)),
        ("dkr.ecr.us-iso-east-1.c2s.ic.gov", host("us-iso-east-1", "aws-iso", false, false)),
        ("dkr-ecr.us-iso-west-1.on.aws.ic.gov", host("us-iso-west-1", "aws-iso", false, true)),
        ("dkr.ecr.us-isob-east-1.sc2s.sgov.gov", host("us-isob-east-1", "aws-iso-b", false, false)),
        ("dkr-ecr.us-isob-east-1.on.aws.scloud", host("us-isob-east-1", "aws-iso-b", false, true)),
        ("dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", host("eu-isoe-west-1", "aws-iso-e", false, false)),
        ("dkr.ecr.us-isof-south-1.csp.hci.ic.gov", host("us-isof-south-1", "aws-iso-f", false, false)),
        ("dkr.ecr.eusc-de-east-1.amazonaws.eu", host("eusc-de-east-1", "aws-eusc", false, false)),
        ("dkr-ecr.eusc-de-east-1.on.amazonwebservices.eu", host("eusc-de-east-1", "aws-eusc", false, true)),
        // Another partition's suffix, or the other kind's.
        ("dkr.ecr.us-east-1.amazonaws.com.cn", None),
        ("dkr.ecr.cn-north-1.amazonaws.com", None),
        ("dkr.ecr.us-iso-east-1.amazonaws.com", None),
        ("dkr.ecr.us-east-1.on.aws", None),
        ("dkr-ecr.us-east-1.amazonaws.com", None),
        // Nearly.
        ("dkr.ecr..amazonaws.com", None),
        ("dkr.ecr.amazonaws.com", None),
        ("dkr.ecr.us_east_1.amazonaws.com", None),
        ("dkr.ecr.us-east-1.amazonaws.com.evil.example", None),
        ("dkr.ecr.us-east-1.evil.amazonaws.com", None),
        ("dkr.ecr.us-east-1.amazonaws.com:5000", None),
        ("dkr.ecr.us-east-1.amazonaws.com.", None),
        ("dkr.s3.us-east-1.amazonaws.com", None),
        ("dkr_ecr.us-east-1.amazonaws.com", None),
        ("ecr.us-east-1.amazonaws.com", None),
        ("dkr.ecr.a-region-with-a-name-longer-than-any.amazonaws.com", None),
    ] {
        assert_eq!(EcrHost::parse(&format!("{ACCOUNT}.{name}")), want, "{name}");
    }
    for name in [
        "public.ecr.aws",
        "docker.io",
        "localhost:5000",
        "",
        "12345678901.dkr.ecr.us-east-1.amazonaws.com",
        "1234567890123.dkr.ecr.us-east-1.amazonaws.com",
        "12345678901x.dkr.ecr.us-east-1.amazonaws.com",
        "dkr.ecr.us-east-1.amazonaws.com",
        "x.123456789012.dkr.ecr.us-east-1.amazonaws.com",
    ] {
        assert_eq!(EcrHost::parse(name), None, "{name}");
    }
}

/// Where the SDK would ask for a token.
fn api(host: &EcrHost) -> Option<String> {
    let params = Params::builder()
        .region(&host.region)
        .use_fips(host.fips)
        .use_dual_stack(host.dual_stack)
        .build()
        .expect("parameters");
    let endpoint = futures_util::FutureExt::now_or_never(DefaultResolver::new().resolve_endpoint(&params));
    Some(endpoint.expect("it asks nobody").ok()?.url().to_owned())
}

#[test]
fn the_sdk_knows_the_same_partitions() {
    for (region, suffix, dual_stack) in [
        ("us-east-1", "amazonaws.com", Some("on.aws")),
        ("ap-northeast-3", "amazonaws.com", Some("on.aws")),
        ("cn-north-1", "amazonaws.com.cn", Some("on.amazonwebservices.com.cn")),
        ("us-gov-west-1", "amazonaws.com", Some("on.aws")),
        ("us-iso-east-1", "c2s.ic.gov", None),
        ("us-isob-east-1", "sc2s.sgov.gov", None),
        ("eu-isoe-west-1", "cloud.adc-e.uk", None),
        ("us-isof-east-1", "csp.hci.ic.gov", None),
        ("eusc-de-east-1", "amazonaws.eu", None),
    ] {
        let host = EcrHost::parse(&format!("{ACCOUNT}.dkr.ecr.{region}.{suffix}")).expect("an ECR registry");
        let url = api(&host).expect("an endpoint");
        assert!(url.ends_with(&format!("{region}.{suffix}")), "{region}: {url}");
        let Some(dual_stack) = dual_stack else { continue };
        let host =
            EcrHost::parse(&format!("{ACCOUNT}.dkr-ecr.{region}.{dual_stack}")).expect("an ECR registry");
        let url = api(&host).expect("an endpoint");
        let want = format!("{region}.api.{}", dual_stack.trim_start_matches("on."));
        assert!(url.ends_with(&want), "{region}: {url}");
    }
    for (name, want) in [
        ("dkr.ecr-fips.us-east-1.amazonaws.com", "fips"),
        ("dkr.ecr-fips.us-gov-west-1.amazonaws.com", "fips"),
    ] {
        let url = api(&EcrHost::parse(&format!("{ACCOUNT}.{name}")).expect("one")).expect("an endpoint");
        assert!(url.contains(want), "{name}: {url}");
    }
}

proptest! {
    #[test]
    fn any_name_is_taken_or_not(name in "\\PC{0,80}") {
        let _ = EcrHost::parse(&name);
    }

    #[test]
    fn a_name_that_is_taken_is_made_of_its_parts(
        account in "[0-9]{11,13}",
        kind in prop::sample::select(vec!["dkr.ecr", "dkr-ecr", "dkr.ecr-fips", "dkr-ecr-fips"]),
        region in "[a-z0-9-]{0,10}",
        suffix in prop::sample::select(vec!["amazonaws.com", "on.aws", "c2s.ic.gov", "amazonaws.com.cn"]),
    ) {
        let name = format!("{account}.{kind}.{region}.{suffix}");
        if let Some(host) = EcrHost::parse(&name) {
            prop_assert_eq!(host.account, account);
            prop_assert_eq!(host.region, region);
            prop_assert_eq!(host.fips, kind.ends_with("fips"));
            prop_assert_eq!(host.dual_stack, kind.starts_with("dkr-"));
        }
    }
}
