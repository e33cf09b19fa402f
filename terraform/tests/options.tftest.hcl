# Joining what is there already, the options, and the variables that refuse nonsense.

mock_provider "aws" {
  source          = "./tests/aws"
  override_during = plan
}

override_data {
  target          = data.aws_vpc.existing
  override_during = plan
  values          = { cidr_block = "10.99.0.0/16", enable_dns_support = true, enable_dns_hostnames = true }
}

override_data {
  target          = data.aws_subnet.existing
  override_during = plan
  values          = { vpc_id = "vpc-theirs", availability_zone = "eu-central-1c", map_public_ip_on_launch = false }
}

override_data {
  target          = data.aws_route_table.existing
  override_during = plan
  values          = { routes = [{ cidr_block = "10.99.0.0/16", gateway_id = "local", nat_gateway_id = "", egress_only_gateway_id = "" }] }
}

override_resource {
  target          = aws_sqs_queue.landing
  override_during = plan
  values          = { arn = "arn:aws:sqs:eu-central-1:123456789012:btc-landing", url = "https://sqs.eu-central-1.amazonaws.com/123456789012/btc-landing" }
}

override_resource {
  target          = aws_sqs_queue.dead
  override_during = plan
  values          = { arn = "arn:aws:sqs:eu-central-1:123456789012:btc-landing-dead" }
}

variables {
  region                = "eu-central-1"
  break_glass_role_arns = ["arn:aws:iam::123456789012:role/break-glass"]
}

run "the_host_joins_a_network_and_a_landing_bucket_that_are_there_already" {
  command = plan

  variables {
    existing_network = {
      vpc_id                     = "vpc-theirs"
      subnet_id                  = "subnet-theirs"
      route_table_id             = "rtb-theirs"
      endpoint_security_group_id = "sg-theirs"
    }
    existing_landing_bucket = {
      name        = "their-landing"
      account_id  = "210987654321"
      kms_key_arn = "arn:aws:kms:eu-central-1:210987654321:key/theirs"
    }
    landing_prefix = "raw/"
    landing_feeds  = "Binance/BTCUSDT,BinanceUM/BTCUSDT=BTCUSDT:BTCUSDT.P"
    landing_events = true
    live_seconds   = 5
    image_id       = "ami-debian"
    instance_type  = "m7i.large"
    package_mirror = {
      bucket     = "my-mirror"
      public_key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZ\n-----END PGP PUBLIC KEY BLOCK-----\n"
    }
  }

  assert {
    condition     = length(aws_vpc.main) + length(aws_subnet.private) + length(aws_route_table.private) + length(aws_flow_log.main) == 0
    error_message = "No network is made."
  }

  assert {
    condition     = aws_instance.host.subnet_id == "subnet-theirs" && aws_security_group.host.vpc_id == "vpc-theirs" && aws_ebs_volume.data.availability_zone == "eu-central-1c"
    error_message = "Host and data volume lie in the existing subnet and its zone."
  }

  assert {
    condition     = aws_vpc_endpoint.s3[0].vpc_id == "vpc-theirs" && aws_vpc_endpoint.s3[0].route_table_ids == toset(["rtb-theirs"])
    error_message = "The gateway endpoint, which was not named, is made in the existing network."
  }

  assert {
    condition = (
      length(aws_vpc_endpoint.interface) + length(aws_security_group.endpoints) == 0
      && aws_vpc_security_group_egress_rule.endpoints.referenced_security_group_id == "sg-theirs"
      && aws_vpc_security_group_ingress_rule.endpoints.security_group_id == "sg-theirs"
    )
    error_message = "Interface endpoints that are there already are used by their group."
  }

  assert {
    condition     = strcontains(aws_instance.host.user_data, "--allow 10.99.0.0/16")
    error_message = "PostgreSQL accepts clients of the existing VPC."
  }

  assert {
    condition     = keys(aws_s3_bucket.main) == ["backup"] && keys(aws_s3_bucket_policy.main) == ["backup"] && length(aws_s3_bucket_notification.landing) == 0
    error_message = "An existing landing bucket, its policy and its notifications are left alone."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : statement.Resource if contains(["ReadLanding", "UseKeyOfLanding"], statement.Sid)
      ] == [
      ["arn:aws:s3:::their-landing/raw/Binance/BTCUSDT/*", "arn:aws:s3:::their-landing/raw/BinanceUM/BTCUSDT/*"],
      ["arn:aws:kms:eu-central-1:210987654321:key/theirs"],
    ]
    error_message = "Each feed of the existing bucket can be read, with its owner's key."
  }

  assert {
    condition     = strcontains(output.env, "BTC_ASSETS_LANDING_URL=s3://their-landing/raw\n") && strcontains(output.env, "BTC_ASSETS_LANDING_ETAG=opaque")
    error_message = "The settings name the existing zone, and say that ETags under a key are no MD5."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_vpc_endpoint.s3[0].policy).Statement : [statement.Action, statement.Resource] if !can(statement.Condition)
    ] == [[["s3:GetObject"], ["arn:aws:s3:::my-mirror/apt/*"]]]
    error_message = "Nobody's requests without signature reach anything but the package mirror."
  }

  assert {
    condition = (
      strcontains(aws_instance.host.user_data, "--package-mirror https://my-mirror.s3.eu-central-1.amazonaws.com/apt --mirror-key /etc/btc-assets/mirror.asc")
      && strcontains(aws_instance.host.user_data, "URIs: https://my-mirror.s3.eu-central-1.amazonaws.com/apt\nSuites: /\nSigned-By: /etc/btc-assets/mirror.asc")
      && strcontains(aws_instance.host.user_data, "-----BEGIN PGP PUBLIC KEY BLOCK-----") && aws_instance.host.ami == "ami-debian"
    )
    error_message = "A host without a baked image is told its mirror and the key that signs it."
  }

  assert {
    condition     = strcontains(aws_instance.host.user_data, "BTC_ASSETS_LIVE_SECONDS=5\n")
    error_message = "The host is told how often the open slice is loaded."
  }

  assert {
    condition     = keys(aws_cloudwatch_metric_alarm.instance) == ["StatusCheckFailed"]
    error_message = "Only types with CPU credits have an alarm on them."
  }

  assert {
    condition     = length(aws_sns_topic_subscription.email) == 0 && length(aws_vpc_security_group_ingress_rule.postgresql) == 0
    error_message = "Without an address nobody is written to, and without clients no port is open."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_sqs_queue_policy.landing[0].policy).Statement : try(statement.Condition, null) if statement.Effect == "Allow"
    ] == [{ ArnEquals = { "aws:SourceArn" = "arn:aws:s3:::their-landing" }, StringEquals = { "aws:SourceAccount" = "210987654321" } }]
    error_message = "The owner of the existing bucket may let it send to our queue."
  }
}

run "an_existing_network_with_a_way_to_the_internet_is_refused" {
  command = plan

  variables {
    existing_network = { vpc_id = "vpc-theirs", subnet_id = "subnet-theirs", route_table_id = "rtb-theirs", s3_endpoint_id = "vpce-theirs" }
  }

  override_data {
    target          = data.aws_route_table.existing
    override_during = plan
    values          = { routes = [{ cidr_block = "0.0.0.0/0", gateway_id = "igw-theirs", nat_gateway_id = "", egress_only_gateway_id = "" }] }
  }

  override_data {
    target          = data.aws_subnet.existing
    override_during = plan
    values          = { vpc_id = "vpc-another", availability_zone = "eu-central-1c", map_public_ip_on_launch = true }
  }

  expect_failures = [data.aws_route_table.existing, data.aws_subnet.existing]
}

run "with_events_the_landing_bucket_tells_a_queue_what_lands" {
  command = plan

  variables {
    landing_events = true
    landing_feeds  = "Binance/BTCUSDT,BinanceUM/BTCUSDT=BTCUSDT:BTCUSDT.P"
  }

  assert {
    condition     = contains(keys(aws_vpc_endpoint.interface), "sqs")
    error_message = "SQS has an interface endpoint."
  }

  assert {
    condition = (
      aws_sqs_queue.landing[0].kms_master_key_id == aws_kms_key.main.arn && aws_sqs_queue.dead[0].kms_master_key_id == aws_kms_key.main.arn
      && jsondecode(aws_sqs_queue.landing[0].redrive_policy) == { deadLetterTargetArn = "arn:aws:sqs:eu-central-1:123456789012:btc-landing-dead", maxReceiveCount = 5 }
    )
    error_message = "Both queues are encrypted with our key, and what fails five times goes to the second."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_sqs_queue_policy.landing[0].policy).Statement : [statement.Principal, statement.Action, try(statement.Condition, null)] if statement.Effect == "Allow"
      ] == [[
        { Service = "s3.amazonaws.com" }, ["sqs:SendMessage"],
        { ArnEquals = { "aws:SourceArn" = "arn:aws:s3:::btc-landing-123456789012" }, StringEquals = { "aws:SourceAccount" = "123456789012" } },
    ]]
    error_message = "Only S3 sends to the queue, for our bucket and account."
  }

  assert {
    condition     = [for queue in aws_s3_bucket_notification.landing[0].queue : queue.filter_prefix] == ["Binance/BTCUSDT/", "BinanceUM/BTCUSDT/"]
    error_message = "The bucket tells what lands below each feed."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_iam_role_policy.host.policy).Statement : [statement.Action, statement.Resource]
      if anytrue([for action in statement.Action : startswith(action, "sqs:")])
    ] == [[["sqs:ReceiveMessage", "sqs:DeleteMessage"], ["arn:aws:sqs:eu-central-1:123456789012:btc-landing"]]]
    error_message = "The host receives and deletes messages of that queue, no more."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_kms_key.main.policy).Statement : try(statement.Condition, null) if statement.Principal == { Service = "s3.amazonaws.com" }
    ] == [{ ArnEquals = { "aws:SourceArn" = "arn:aws:s3:::btc-landing-123456789012" }, StringEquals = { "aws:SourceAccount" = "123456789012" } }]
    error_message = "S3 uses the key for messages about our bucket only."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.dead_letters[0].dimensions == tomap({ QueueName = "btc-landing-dead" }) && aws_cloudwatch_metric_alarm.dead_letters[0].threshold == 0
    error_message = "A message in the dead-letter queue is an alarm."
  }

  assert {
    condition     = strcontains(output.env, "BTC_ASSETS_LANDING_EVENTS_QUEUE=https://sqs.eu-central-1.amazonaws.com/123456789012/btc-landing")
    error_message = "The settings name the queue."
  }
}

run "variables_refuse_what_cannot_be_right" {
  command = plan

  variables {
    name                      = "AWS btc"
    region                    = "Frankfurt"
    break_glass_role_arns     = []
    vpc_cidr                  = "10.0.0.0/28"
    existing_network          = { vpc_id = "theirs", subnet_id = "subnet-theirs", route_table_id = "rtb-theirs" }
    client_security_group_ids = ["10.0.0.0/8"]
    instance_type             = "medium"
    package_mirror            = { bucket = "my-mirror", public_key = "mirror.asc" }
    postgresql_version        = 14
    data_volume_gb            = 1
    landing_prefix            = "raw"
    landing_feeds             = "*"
    collectors                = { role_arns = ["arn:aws:iam::210987654321:role/*"] }
    backup_prefix             = "models"
    noncurrent_days           = 0
    alarm_email               = "team"
  }

  expect_failures = [
    var.name, var.region, var.break_glass_role_arns, var.vpc_cidr, var.existing_network, var.client_security_group_ids,
    var.instance_type, var.package_mirror, var.postgresql_version, var.data_volume_gb, var.landing_prefix, var.landing_feeds, var.collectors, var.backup_prefix, var.noncurrent_days, var.alarm_email,
  ]
}

run "variables_refuse_what_contradicts_them" {
  command = plan

  variables {
    availability_zone       = "us-east-1a"
    package_mirror          = { bucket = "my-mirror", public_key = "-----BEGIN PGP PUBLIC KEY BLOCK-----" }
    existing_landing_bucket = { name = "their-landing" }
    landing_bucket_name     = "my-landing"
  }

  expect_failures = [var.availability_zone, var.image_id, var.existing_landing_bucket]
}
