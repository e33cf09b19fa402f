# The rules of a private host, each an assertion that fails when it is broken. They are grouped because every run plans anew.
# source.tftest.hcl has those that no plan can show.

mock_provider "aws" {
  source          = "./tests/aws"
  override_during = plan
}

override_resource {
  target          = aws_security_group.host
  override_during = plan
  values          = { id = "sg-host" }
}

override_resource {
  target          = aws_security_group.endpoints
  override_during = plan
  values          = { id = "sg-endpoints" }
}

override_resource {
  target          = aws_vpc_endpoint.s3
  override_during = plan
  values          = { id = "vpce-s3" }
}

variables {
  region                    = "eu-central-1"
  break_glass_role_arns     = ["arn:aws:iam::123456789012:role/break-glass"]
  client_security_group_ids = ["sg-notebooks"]
  collectors = {
    role_arns        = ["arn:aws:iam::210987654321:role/collector"]
    vpc_endpoint_ids = ["vpce-collector"]
  }
  alarm_email = "team@example.org"
}

run "the_network_leads_to_aws_and_nowhere_else" {
  command = plan

  assert {
    condition     = aws_vpc.main[0].enable_dns_support && aws_vpc.main[0].enable_dns_hostnames && aws_subnet.private[0].vpc_id == aws_vpc.main[0].id
    error_message = "The VPC resolves the private names of its endpoints."
  }

  assert {
    condition     = length(aws_default_security_group.main[0].ingress) == 0 && length(aws_default_security_group.main[0].egress) == 0
    error_message = "The default security group allows nothing."
  }

  assert {
    condition     = aws_flow_log.main[0].traffic_type == "ALL" && aws_cloudwatch_log_group.flow[0].kms_key_id == aws_kms_key.main.arn
    error_message = "Flow logs record what was let through and what was refused, under our key."
  }

  assert {
    condition = (
      aws_vpc_security_group_egress_rule.s3.prefix_list_id == "pl-s3" && aws_vpc_security_group_egress_rule.s3.security_group_id == "sg-host"
      && aws_vpc_security_group_egress_rule.s3.from_port == 443 && aws_vpc_security_group_egress_rule.s3.to_port == 443
      && data.aws_ec2_managed_prefix_list.s3.name == "com.amazonaws.eu-central-1.s3"
    )
    error_message = "The host reaches S3 by the gateway's prefix list only."
  }

  assert {
    condition = (
      aws_vpc_security_group_egress_rule.endpoints.security_group_id == "sg-host"
      && aws_vpc_security_group_egress_rule.endpoints.referenced_security_group_id == "sg-endpoints"
      && aws_vpc_security_group_ingress_rule.endpoints.security_group_id == "sg-endpoints"
      && aws_vpc_security_group_ingress_rule.endpoints.referenced_security_group_id == "sg-host"
      && alltrue([for rule in [aws_vpc_security_group_egress_rule.endpoints, aws_vpc_security_group_ingress_rule.endpoints] : rule.from_port == 443 && rule.to_port == 443])
    )
    error_message = "The host reaches interface endpoints by their group on 443, and only the host does."
  }

  assert {
    condition = (
      keys(aws_vpc_security_group_ingress_rule.postgresql) == ["sg-notebooks"]
      && aws_vpc_security_group_ingress_rule.postgresql["sg-notebooks"].referenced_security_group_id == "sg-notebooks"
      && aws_vpc_security_group_ingress_rule.postgresql["sg-notebooks"].security_group_id == "sg-host"
      && aws_vpc_security_group_ingress_rule.postgresql["sg-notebooks"].from_port == 5432
      && aws_vpc_security_group_ingress_rule.postgresql["sg-notebooks"].to_port == 5432
    )
    error_message = "PostgreSQL is open to named groups of clients only, on 5432."
  }

  assert {
    condition     = keys(aws_vpc_endpoint.interface) == ["ec2messages", "logs", "monitoring", "ssm", "ssmmessages"]
    error_message = "There are interface endpoints for ssm, ssmmessages, ec2messages, logs and monitoring, and for nothing else."
  }

  assert {
    condition = alltrue([
      for endpoint in aws_vpc_endpoint.interface :
      endpoint.private_dns_enabled && endpoint.vpc_endpoint_type == "Interface" && endpoint.security_group_ids == toset(["sg-endpoints"])
      && [for statement in jsondecode(endpoint.policy).Statement : try(statement.Condition, null)] == [{ StringEquals = { "aws:PrincipalAccount" = "123456789012" } }]
    ])
    error_message = "Interface endpoints have private names, their own group, and serve our account only."
  }

  assert {
    condition = (
      aws_vpc_endpoint.s3[0].vpc_endpoint_type == "Gateway"
      && alltrue([
        for statement in jsondecode(aws_vpc_endpoint.s3[0].policy).Statement :
        try(statement.Condition.StringEquals, null) == { "aws:PrincipalAccount" = "123456789012", "aws:ResourceAccount" = "123456789012" }
        && alltrue([for resource in statement.Resource : can(regex("^arn:aws:s3:::btc-(landing|backup)-123456789012(/.+)?$", resource))])
        && alltrue([for action in statement.Action : !strcontains(action, "*")])
      ])
    )
    error_message = "The way to S3 leads to our two buckets and serves our account only."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_vpc_endpoint.s3[0].policy).Statement : statement.Action
      if anytrue([for resource in statement.Resource : strcontains(resource, "landing")])
    ] == [["s3:ListBucket", "s3:GetObject"]]
    error_message = "Through the way to S3 the landing zone can only be read."
  }
}

run "the_host_keeps_its_data_is_reached_by_sessions_and_raises_alarms" {
  command = plan

  assert {
    condition = (
      aws_instance.host.metadata_options[0].http_tokens == "required"
      && aws_instance.host.metadata_options[0].http_put_response_hop_limit == 1
    )
    error_message = "Instance metadata needs a token and goes one hop (IMDSv2)."
  }

  assert {
    condition     = aws_instance.host.associate_public_ip_address == false && aws_subnet.private[0].map_public_ip_on_launch == false
    error_message = "The host has no public address."
  }

  assert {
    condition     = aws_instance.host.disable_api_termination
    error_message = "The host is protected against termination."
  }

  assert {
    condition     = aws_instance.host.root_block_device[0].encrypted && aws_instance.host.root_block_device[0].kms_key_id == aws_kms_key.main.arn
    error_message = "The root volume is encrypted with our key."
  }

  assert {
    condition = (
      aws_ebs_volume.data.type == "gp3" && aws_ebs_volume.data.encrypted && aws_ebs_volume.data.kms_key_id == aws_kms_key.main.arn
      && aws_volume_attachment.data.volume_id == aws_ebs_volume.data.id && aws_volume_attachment.data.instance_id == aws_instance.host.id
      && aws_ebs_volume.data.availability_zone == aws_subnet.private[0].availability_zone
    )
    error_message = "Data lies on a gp3 volume of its own, encrypted with our key."
  }

  assert {
    condition     = aws_instance.host.monitoring && aws_instance.host.ebs_optimized && aws_instance.host.instance_type == "t3.medium"
    error_message = "The host is a t3.medium with metrics each minute and its own bandwidth to its volumes."
  }

  assert {
    condition = (
      jsondecode(aws_ssm_document.session.content).inputs.cloudWatchLogGroupName == "/btc/sessions"
      && jsondecode(aws_ssm_document.session.content).inputs.cloudWatchStreamingEnabled
      && aws_cloudwatch_log_group.sessions.kms_key_id == aws_kms_key.main.arn
    )
    error_message = "Sessions are recorded, under our key."
  }

  assert {
    condition = !anytrue([
      for pattern in [
        "AKIA[0-9A-Z]{16}", "PRIVATE KEY", ":[^/@ ]+@", # keys, and passwords in URLs
        "(?i)(password|passwd|secret|passphrase|token|cipher_pass)[a-z_-]*[=: ]+[^ /$<]",
      ] : can(regex(pattern, replace(aws_instance.host.user_data, "/(?m)^ *#.*$/", "")))
    ])
    error_message = "User data holds no secret."
  }

  assert {
    condition = alltrue([
      for line in [
        "BTC_ASSETS_LANDING_URL=s3://btc-landing-123456789012", "BTC_ASSETS_MODELS_URL=s3://btc-backup-123456789012", "METRIC_NAMESPACE=btc", "HOST_NAME=btc",
        "--data-device /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0", "--allow 10.20.0.0/24",
        "--password-parameter /btc/db/owner", "--backup-cipher-parameter /btc/backup/cipher", "btc btc_owner",
      ] : strcontains(aws_instance.host.user_data, line)
    ])
    error_message = "User data tells the host its names: buckets, volume, range, parameters, namespace."
  }

  assert {
    condition = (
      !can(regex("://[^@/]*:[^@/]*@", output.env)) && strcontains(output.env, "sslmode=require")
      && strcontains(output.session_command, "--document-name btc-session") && strcontains(output.ui_command, "portNumber=3000")
    )
    error_message = "Outputs tell how to connect, encrypted, and no password."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.store["WalArchiveAgeSeconds"].threshold == 300
      && aws_cloudwatch_metric_alarm.store["WalArchiveAgeSeconds"].treat_missing_data == "breaching"
    )
    error_message = "WAL that is not archived for 5 minutes is an alarm, and so is not knowing."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.store["LastBackupAgeSeconds"].threshold == 93600
      && aws_cloudwatch_metric_alarm.store["LastBackupAgeSeconds"].treat_missing_data == "breaching"
    )
    error_message = "A last backup older than 26 hours is an alarm, and so is not knowing."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.store["WalFilesWaiting"].threshold == 64 && aws_cloudwatch_metric_alarm.store["DataDiskUsedPercent"].threshold == 80
    error_message = "WAL that waits and a data volume that fills are alarms before they hurt."
  }

  assert {
    condition = alltrue([
      for name, alarm in aws_cloudwatch_metric_alarm.store :
      alarm.namespace == "btc" && alarm.metric_name == name && alarm.dimensions == tomap({ Host = "btc" }) && alarm.period == 60
      && alarm.comparison_operator == "GreaterThanThreshold"
    ])
    error_message = "Alarms read the metrics as the host puts them: its namespace, dimension Host, each minute."
  }

  assert {
    condition = (
      try(aws_cloudwatch_metric_alarm.instance["CPUCreditBalance"].comparison_operator, "") == "LessThanThreshold"
      && aws_cloudwatch_metric_alarm.instance["StatusCheckFailed"].threshold == 0
      && contains(aws_cloudwatch_metric_alarm.recover.alarm_actions, "arn:aws:automate:eu-central-1:ec2:recover")
    )
    error_message = "CPU credits that run out and failing checks are alarms; a broken machine is left for another."
  }

  assert {
    condition = alltrue([
      for alarm in concat(values(aws_cloudwatch_metric_alarm.store), values(aws_cloudwatch_metric_alarm.instance), [aws_cloudwatch_metric_alarm.recover]) :
      contains(alarm.alarm_actions, aws_sns_topic.alarms.arn)
    ])
    error_message = "Every alarm is sent."
  }

  assert {
    condition = (
      aws_sns_topic.alarms.kms_master_key_id == aws_kms_key.main.arn
      && aws_sns_topic_subscription.email[0].endpoint == "team@example.org"
      && [for statement in jsondecode(aws_sns_topic_policy.alarms.policy).Statement : [statement.Principal, try(statement.Condition.StringEquals, null)]]
      == [[{ Service = "cloudwatch.amazonaws.com" }, { "aws:SourceAccount" = "123456789012" }]]
      && [for statement in jsondecode(aws_kms_key.main.policy).Statement : try(statement.Condition.StringEquals, null) if statement.Principal == { Service = "cloudwatch.amazonaws.com" }]
      == [{ "aws:SourceAccount" = "123456789012" }]
    )
    error_message = "Alarms go encrypted to a topic that only our alarms may publish to."
  }
}

run "data_and_rights_are_given_to_the_host_and_to_break_glass_only" {
  command = plan

  assert {
    condition = alltrue([
      for bucket in ["backup", "landing"] :
      aws_s3_bucket_public_access_block.main[bucket].block_public_acls && aws_s3_bucket_public_access_block.main[bucket].block_public_policy
      && aws_s3_bucket_public_access_block.main[bucket].ignore_public_acls && aws_s3_bucket_public_access_block.main[bucket].restrict_public_buckets
      && aws_s3_bucket_ownership_controls.main[bucket].rule[0].object_ownership == "BucketOwnerEnforced"
    ])
    error_message = "Buckets are never public, and their owner owns every object."
  }

  assert {
    condition = alltrue([
      for bucket in ["backup", "landing"] :
      aws_s3_bucket_versioning.main[bucket].versioning_configuration[0].status == "Enabled"
      && aws_s3_bucket_lifecycle_configuration.main[bucket].rule[0].status == "Enabled"
      && one(aws_s3_bucket_lifecycle_configuration.main[bucket].rule[0].noncurrent_version_expiration[*].noncurrent_days) == 14
      && one(aws_s3_bucket_lifecycle_configuration.main[bucket].rule[0].abort_incomplete_multipart_upload[*].days_after_initiation) == 7
    ])
    error_message = "Buckets keep versions, and forget old ones and broken uploads."
  }

  assert {
    condition = alltrue([
      for bucket in ["backup", "landing"] :
      [for statement in jsondecode(aws_s3_bucket_policy.main[bucket].policy).Statement : statement if statement.Sid == "OnlyByTLS"] == [{
        Sid       = "OnlyByTLS"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = ["arn:aws:s3:::btc-${bucket}-123456789012", "arn:aws:s3:::btc-${bucket}-123456789012/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }]
    ])
    error_message = "Buckets answer by TLS only."
  }

  assert {
    condition = alltrue([
      for bucket, actions in { backup = { Action = "s3:*" }, landing = { NotAction = ["s3:AbortMultipartUpload", "s3:PutObject"] } } :
      [for statement in jsondecode(aws_s3_bucket_policy.main[bucket].policy).Statement : statement if statement.Sid == "DataThroughOurEndpoint"] == [
        merge(actions, {
          Sid       = "DataThroughOurEndpoint"
          Effect    = "Deny"
          Principal = "*"
          Resource  = ["arn:aws:s3:::btc-${bucket}-123456789012/*"]
          Condition = {
            StringNotEquals = { "aws:SourceVpce" = ["vpce-s3"] }
            ArnNotEquals    = { "aws:PrincipalArn" = ["arn:aws:iam::123456789012:role/break-glass"] }
          }
        })
      ]
    ])
    error_message = "Data in the buckets comes through our endpoint only, except for the break-glass role."
  }

  assert {
    condition = alltrue([
      for bucket in ["backup", "landing"] : alltrue([
        for statement in jsondecode(aws_s3_bucket_policy.main[bucket].policy).Statement :
        alltrue([for resource in statement.Resource : endswith(resource, "/*")])
        if statement.Effect == "Deny" && statement.Sid != "OnlyByTLS"
      ])
    ])
    error_message = "No denial keeps the owner from managing a bucket."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_s3_bucket_policy.main["landing"].policy).Statement : [statement.Effect, statement.Action, statement.Condition]
      if startswith(statement.Sid, "Written")
      ] == [
      ["Deny", ["s3:AbortMultipartUpload", "s3:PutObject"], {
        ArnNotEquals = { "aws:PrincipalArn" = ["arn:aws:iam::210987654321:role/collector", "arn:aws:iam::123456789012:role/break-glass"] }
      }],
      ["Deny", ["s3:AbortMultipartUpload", "s3:PutObject"], {
        StringNotEquals = { "aws:SourceVpce" = ["vpce-collector"] }
        ArnNotEquals    = { "aws:PrincipalArn" = ["arn:aws:iam::123456789012:role/break-glass"] }
      }],
    ]
    error_message = "Only collectors write the landing zone, through their endpoints."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_s3_bucket_policy.main["landing"].policy).Statement : [statement.Action, statement.Resource, statement.Principal.AWS]
      if statement.Effect == "Allow"
      ] == [
      [["s3:AbortMultipartUpload", "s3:PutObject"], ["arn:aws:s3:::btc-landing-123456789012/Binance/BTCUSDT/*"], ["arn:aws:iam::210987654321:role/collector"]]
    ]
    error_message = "Collectors write below the feeds, and do nothing else."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_s3_bucket_policy.main["backup"].policy).Statement : statement.Effect == "Deny"])
    error_message = "The backup bucket's policy allows nobody anything."
  }

  assert {
    condition = (
      one(one(aws_s3_bucket_server_side_encryption_configuration.main["backup"].rule).apply_server_side_encryption_by_default).kms_master_key_id == aws_kms_key.main.arn
      && one(one(aws_s3_bucket_server_side_encryption_configuration.main["backup"].rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
      && one(one(aws_s3_bucket_server_side_encryption_configuration.main["landing"].rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    )
    error_message = "Backups are encrypted with our key; landed objects so that their ETags stay MD5."
  }

  assert {
    condition = alltrue([
      for policy in [aws_iam_role_policy.host.policy, aws_iam_role_policy.flow[0].policy] : alltrue([
        for statement in jsondecode(policy).Statement :
        statement.Effect == "Allow" && alltrue([for action in statement.Action : !strcontains(action, "*")])
      ])
    ])
    error_message = "No action has a wildcard."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : statement.Action if contains(statement.Resource, "*")
      ])) == toset([
      "cloudwatch:PutMetricData", "ssm:UpdateInstanceInformation", "logs:DescribeLogGroups",
      "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
      "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage", "ec2messages:GetEndpoint",
      "ec2messages:GetMessages", "ec2messages:SendReply",
    ])
    error_message = "Only actions for which AWS knows no resource have none."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : statement.Action
      if anytrue([for resource in statement.Resource : strcontains(resource, "btc-landing-123456789012")])
    ])) == toset(["s3:ListBucket", "s3:GetObject"])
    error_message = "The host lists and reads the landing zone, no more."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : [statement.Resource, try(statement.Condition, null)]
      if contains(statement.Action, "s3:ListBucket")
      ] == [
      [["arn:aws:s3:::btc-landing-123456789012"], { StringLike = { "s3:prefix" = ["Binance/BTCUSDT/*"] } }],
      [["arn:aws:s3:::btc-backup-123456789012"], { StringLike = { "s3:prefix" = ["pgbackrest/*", "models/*", "dagster/*"] } }],
    ]
    error_message = "The host lists below its prefixes only."
  }

  assert {
    condition = toset(flatten([
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : statement.Resource if contains(statement.Action, "s3:GetObject")
      ])) == toset([
      "arn:aws:s3:::btc-landing-123456789012/Binance/BTCUSDT/*",
      "arn:aws:s3:::btc-backup-123456789012/pgbackrest/*",
      "arn:aws:s3:::btc-backup-123456789012/models/*",
      "arn:aws:s3:::btc-backup-123456789012/dagster/*",
    ])
    error_message = "The host reads objects below its prefixes only."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : statement.Action
      if anytrue([for resource in statement.Resource : startswith(resource, "arn:aws:s3:::btc-backup-123456789012/")])
    ] == [["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]]
    error_message = "The host writes backups, and cannot delete their old versions."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : [statement.Action, statement.Resource, can(statement.Condition.StringEquals["aws:SourceVpc"])]
      if anytrue([for action in statement.Action : strcontains(action, "Parameter")])
    ] == [[["ssm:GetParameter"], ["arn:aws:ssm:eu-central-1:123456789012:parameter/btc/*"], true]]
    error_message = "The host reads the parameters below its name only, and only from within the VPC."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : try(statement.Condition.StringEquals["cloudwatch:namespace"], null)
      if contains(statement.Action, "cloudwatch:PutMetricData")
    ] == ["btc"]
    error_message = "The host puts metrics into its own namespace only."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : [statement.Action, statement.Resource, try(statement.Condition.StringEquals["kms:ViaService"], null)]
      if anytrue([for action in statement.Action : startswith(action, "kms:")])
      ] == [[
        ["kms:Decrypt", "kms:GenerateDataKey"], ["arn:aws:kms:eu-central-1:123456789012:key/ours"],
        ["s3.eu-central-1.amazonaws.com", "ssm.eu-central-1.amazonaws.com"],
    ]]
    error_message = "The host uses our key only, through S3 and the parameter store."
  }

  assert {
    condition     = aws_kms_key.main.enable_key_rotation && aws_kms_key.main.deletion_window_in_days == 30 && aws_kms_alias.main.name == "alias/btc"
    error_message = "The key turns every year, and is not gone at once."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.main.policy).Statement :
      alltrue([for action in statement.Action : !strcontains(action, "*")])
      && (!contains(statement.Action, "kms:Decrypt") || can(statement.Condition))
      && try(statement.Principal.AWS, "root") != "*"
    ])
    error_message = "The key's policy has no wildcards, and decryption always has a condition."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_kms_key.main.policy).Statement : try(statement.Condition.ArnLike["kms:EncryptionContext:aws:logs:arn"], null)
      if try(statement.Principal.Service, "") == "logs.eu-central-1.amazonaws.com"
    ] == ["arn:aws:logs:eu-central-1:123456789012:log-group:/btc/*"]
    error_message = "CloudWatch Logs uses the key for our log groups only."
  }

  assert {
    condition     = jsondecode(aws_iam_role.host.assume_role_policy).Statement == [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
    error_message = "Only EC2 takes the host's role."
  }
}
