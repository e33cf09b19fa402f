# Rules that no plan can show: that something is not there at all, or what Terraform itself keeps from happening.

run "what_a_private_host_must_not_have_is_not_in_the_source" {
  command = plan

  module {
    source = "./tests/source"
  }

  assert {
    condition     = !can(regex("resource \"aws_(internet_gateway|nat_gateway|egress_only_internet_gateway|route|eip|vpn_gateway)\"", output.text))
    error_message = "No route leads to the internet."
  }

  assert {
    condition     = !can(regex("cidr_ipv[46]|cidr_blocks|0\\.0\\.0\\.0/0|::/0", output.text))
    error_message = "Security groups name groups and prefix lists, never ranges of addresses."
  }

  assert {
    condition     = length(regexall("resource \"aws_(vpc_)?security_group(_(in|e)gress)?_rule\"", output.text)) == 4 && !can(regex("(in|e)gress +\\{", output.text))
    error_message = "There are no other rules of security groups than those that rules.tftest.hcl knows."
  }

  assert {
    condition     = !can(regex("aws_iam_role_policy_attachment|managed_policy_arns|aws_iam_policy_attachment", output.text))
    error_message = "No policy is somebody else's."
  }

  assert {
    condition     = !can(regex("key_name|aws_key_pair|provisioner", output.text))
    error_message = "There is no SSH key."
  }

  assert {
    condition     = !can(regex("(resource|data) \"(aws_ssm_parameters?|aws_secretsmanager_[a-z_]+|random_[a-z]+|tls_[a-z_]+|aws_iam_access_key)\"", output.text))
    error_message = "No secret is made or read by Terraform, whose state would hold it."
  }

  assert {
    condition = alltrue([
      for resource in ["\"aws_ebs_volume\" \"data\"", "\"aws_s3_bucket\" \"main\""] :
      can(regex("prevent_destroy += true", split("\n}\n", split("resource ${resource}", output.files["storage.tf"])[1])[0]))
    ])
    error_message = "Nothing destroys the data volume or a bucket by the way."
  }

  assert {
    condition     = can(regex("ignore_changes += \\[ami, user_data\\]", split("\n}\n", split("resource \"aws_instance\" \"host\"", output.files["host.tf"])[1])[0]))
    error_message = "A newer image does not replace the host by the way."
  }

  assert {
    condition     = strcontains(output.files["versions.tf"], "backend \"s3\" {}")
    error_message = "The state lies in S3, not on somebody's laptop."
  }
}
