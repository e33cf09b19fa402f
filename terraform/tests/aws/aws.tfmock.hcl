# Answers of AWS that the tests build on. What else AWS would compute is not known while planning.

mock_data "aws_caller_identity" {
  defaults = { account_id = "123456789012" }
}

mock_data "aws_partition" {
  defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
}

mock_data "aws_ec2_managed_prefix_list" {
  defaults = { id = "pl-s3" }
}

mock_data "aws_ami" {
  defaults = { id = "ami-baked" }
}

mock_resource "aws_vpc" {
  defaults = { id = "vpc-ours" }
}

mock_resource "aws_subnet" {
  defaults = { id = "subnet-ours" }
}

mock_resource "aws_kms_key" {
  defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/ours", key_id = "ours" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:ours" }
}

mock_resource "aws_ebs_volume" {
  defaults = { id = "vol-0123456789abcdef0" }
}

mock_resource "aws_instance" {
  defaults = { id = "i-host", private_dns = "ip-10-20-0-5.eu-central-1.compute.internal" }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:eu-central-1:123456789012:alarms" }
}
