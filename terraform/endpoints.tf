# How the host reaches AWS without internet: S3 by a gateway (free), the other services by interfaces (about 7 USD a month each).

locals {
  own_s3_endpoint         = try(var.existing_network.s3_endpoint_id, null) == null
  own_interface_endpoints = try(var.existing_network.endpoint_security_group_id, null) == null
  s3_endpoint_id          = local.own_s3_endpoint ? aws_vpc_endpoint.s3[0].id : var.existing_network.s3_endpoint_id

  interface_services = toset(concat(
    ["ssm", "ssmmessages", "ec2messages", "logs", "monitoring"], # parameters, sessions and commands, session logs, metrics
    var.landing_events ? ["sqs"] : [],
  ))
}

resource "aws_vpc_endpoint" "s3" {
  count = local.own_s3_endpoint ? 1 : 0

  vpc_id            = local.vpc_id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [local.route_table_id]
  tags              = { Name = "${var.name}-s3" }

  # Nothing but our buckets: what a program on the host is tricked into cannot carry data to a bucket of somebody else's.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [
        {
          Sid       = "Landing"
          Effect    = "Allow"
          Principal = "*"
          Action    = ["s3:ListBucket", "s3:GetObject"]
          Resource  = concat([local.landing_bucket_arn], local.landing_objects)
          Condition = { StringEquals = { "aws:PrincipalAccount" = local.account, "aws:ResourceAccount" = local.landing_account } }
        },
        {
          Sid       = "Backup"
          Effect    = "Allow"
          Principal = "*"
          Action    = concat(["s3:ListBucket"], local.read_and_write)
          Resource  = concat([local.backup_bucket_arn], local.backup_objects)
          Condition = { StringEquals = { "aws:PrincipalAccount" = local.account, "aws:ResourceAccount" = local.account } }
        },
      ],
      # apt sends no signature; what it fetches is signed by the mirror's key instead.
      var.package_mirror == null ? [] : [{
        Sid       = "PackageMirror"
        Effect    = "Allow"
        Principal = "*"
        Action    = ["s3:GetObject"]
        Resource  = ["arn:${local.partition}:s3:::${var.package_mirror.bucket}/${var.package_mirror.prefix}/*"]
      }],
    )
  })
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.own_interface_endpoints ? local.interface_services : toset([])

  vpc_id              = local.vpc_id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = [local.subnet_id]
  security_group_ids  = [aws_security_group.endpoints[0].id]
  private_dns_enabled = true
  tags                = { Name = "${var.name}-${each.key}" }

  # Credentials of another account, brought onto the host, lead nowhere.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OurAccount"
      Effect    = "Allow"
      Principal = "*"
      Action    = "*"
      Resource  = "*"
      Condition = { StringEquals = { "aws:PrincipalAccount" = local.account } }
    }]
  })
}
