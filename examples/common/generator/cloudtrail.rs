//! CloudTrail records.

use std::fmt::Write as _;

use super::Draft;
use super::random::Random;

/// A cloud operation: service, name, the resource's type, and the beginning of its name.
pub(super) type Operation = (&'static str, &'static str, &'static str, &'static str);

/// Who makes a request under which role, in whose account, and what of.
pub(super) struct Request<'r> {
    pub(super) agent: &'r str,
    pub(super) role: &'r str,
    /// The role's account.
    pub(super) home: u64,
    /// The resource's account.
    pub(super) account: u64,
    pub(super) operation: Operation,
    pub(super) read_only: bool,
}

impl Request<'_> {
    /// The ARN of one of the operation's resources.
    pub(super) fn resource(&self, random: &mut Random) -> String {
        let (service, _, _, name) = self.operation;
        format!("arn:aws:{service}:eu-west-1:{}:{name}{:03}", self.account, random.habit(200))
    }

    pub(super) fn write(&self, draft: Draft, random: &mut Random, line: &mut String) {
        let Request { agent, role, home, account, operation: (service, name, kind, _), read_only } = *self;
        let (id, time) = (draft.number, draft.time());
        let (key, request, arn) = (draft.agent * 7 + home, random.next(), self.resource(random));
        let _ = write!(
            line,
            "{{\"eventVersion\":\"1.11\",\"userIdentity\":{{\"type\":\"AssumedRole\",\
             \"principalId\":\"AROA{key:016X}:{agent}\",\"arn\":\"arn:aws:sts::{home}:assumed-role/{role}/{agent}\",\
             \"accountId\":\"{home}\",\"accessKeyId\":\"ASIA{key:016X}\",\
             \"sessionContext\":{{\"sessionIssuer\":{{\"type\":\"Role\",\"principalId\":\"AROA{key:016X}\",\
             \"arn\":\"arn:aws:iam::{home}:role/{role}\",\"accountId\":\"{home}\",\"userName\":\"{role}\"}},\
             \"attributes\":{{\"creationDate\":\"{time:.0}\",\"mfaAuthenticated\":\"false\"}}}}}},\
             \"eventTime\":\"{time:.0}\",\"eventSource\":\"{service}.amazonaws.com\",\"eventName\":\"{name}\",\
             \"awsRegion\":\"eu-west-1\",\"sourceIPAddress\":\"10.{net}.0.{host}\",\
             \"userAgent\":\"agent-runtime/4.2\",\"requestParameters\":{{\"resource\":\"{arn}\",\
             \"maxResults\":{limit}}},\"responseElements\":null,\"requestID\":\"{request:016x}\",\
             \"eventID\":\"e{id:09}\",\"readOnly\":{read_only},\"resources\":[{{\"accountId\":\"{account}\",\
             \"type\":\"{kind}\",\"ARN\":\"{arn}\"}}],\"eventType\":\"AwsApiCall\",\"managementEvent\":true,\
             \"recipientAccountId\":\"{account}\",\"eventCategory\":\"Management\",\
             \"tlsDetails\":{{\"tlsVersion\":\"TLSv1.3\",\"cipherSuite\":\"TLS_AES_128_GCM_SHA256\",\
             \"clientProvidedHostHeader\":\"{service}.eu-west-1.amazonaws.com\"}}}}",
            net = draft.agent % 200,
            host = draft.agent % 250,
            limit = request % 100,
        );
    }
}
