# What the host may do. Written out instead of AmazonSSMManagedInstanceCore, which may read every parameter of the account.

resource "aws_iam_role" "host" {
  name = "${var.name}-host"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}

resource "aws_iam_instance_profile" "host" {
  name = "${var.name}-host"
  role = aws_iam_role.host.name
}

resource "aws_iam_role_policy" "host" {
  #checkov:skip=CKV_AWS_355:Only where AWS knows no narrower resource; tests/rules.tftest.hcl lists these actions.
  #checkov:skip=CKV_AWS_290:PutMetricData knows no resource and is bound to our namespace; session channels know none.
  name = "host"
  role = aws_iam_role.host.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid       = "ListLanding"
          Effect    = "Allow"
          Action    = ["s3:ListBucket"]
          Resource  = [local.landing_bucket_arn]
          Condition = { StringLike = { "s3:prefix" = [for prefix in local.landing_prefixes : "${prefix}*"] } }
        },
        {
          Sid      = "ReadLanding"
          Effect   = "Allow"
          Action   = ["s3:GetObject"]
          Resource = local.landing_objects
        },
        {
          Sid       = "ListBackup"
          Effect    = "Allow"
          Action    = ["s3:ListBucket"]
          Resource  = [local.backup_bucket_arn]
          Condition = { StringLike = { "s3:prefix" = [for prefix in local.backup_prefixes : "${prefix}*"] } }
        },
        {
          # No rights on versions: what a broken-in host overwrites or deletes can be brought back.
          Sid      = "WriteBackup"
          Effect   = "Allow"
          Action   = local.read_and_write
          Resource = local.backup_objects
        },
        {
          Sid       = "UseKey"
          Effect    = "Allow"
          Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
          Resource  = [aws_kms_key.main.arn]
          Condition = { StringEquals = { "kms:ViaService" = [for service in local.services_with_key : service if !startswith(service, "ec2.")] } }
        },
        {
          Sid       = "ReadParameters"
          Effect    = "Allow"
          Action    = ["ssm:GetParameter"]
          Resource  = ["arn:${local.partition}:ssm:${var.region}:${local.account}:parameter/${var.name}/*"]
          Condition = { StringEquals = { "aws:SourceVpc" = local.vpc_id } }
        },
        {
          Sid       = "PutMetrics"
          Effect    = "Allow"
          Action    = ["cloudwatch:PutMetricData"]
          Resource  = ["*"]
          Condition = { StringEquals = { "cloudwatch:namespace" = var.name } }
        },
        {
          Sid      = "WriteSessionLogs"
          Effect   = "Allow"
          Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
          Resource = ["${aws_cloudwatch_log_group.sessions.arn}:*"]
        },
        {
          # What the agent needs for sessions and commands; none of these knows a narrower resource.
          Sid    = "SystemsManager"
          Effect = "Allow"
          Action = [
            "ssm:UpdateInstanceInformation",
            "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel",
            "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
            "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage",
            "ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply",
            "logs:DescribeLogGroups", # whether the group of session logs is encrypted
          ]
          Resource = ["*"]
        },
      ],
      try(var.existing_landing_bucket.kms_key_arn, null) == null ? [] : [{
        Sid       = "UseKeyOfLanding"
        Effect    = "Allow"
        Action    = ["kms:Decrypt"]
        Resource  = [var.existing_landing_bucket.kms_key_arn]
        Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.${local.dns_suffix}" } }
      }],
      var.landing_events ? [{
        Sid      = "ReadEvents"
        Effect   = "Allow"
        Action   = ["sqs:ReceiveMessage", "sqs:DeleteMessage"]
        Resource = [aws_sqs_queue.landing[0].arn]
      }] : [],
    )
  })
}
