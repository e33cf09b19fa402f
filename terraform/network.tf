# A VPC with one private subnet and no way to the internet: no internet gateway, no NAT. One host needs one zone.

locals {
  own_network       = var.existing_network == null
  vpc_id            = local.own_network ? aws_vpc.main[0].id : var.existing_network.vpc_id
  vpc_cidr          = local.own_network ? var.vpc_cidr : data.aws_vpc.existing[0].cidr_block
  subnet_id         = local.own_network ? aws_subnet.private[0].id : var.existing_network.subnet_id
  route_table_id    = local.own_network ? aws_route_table.private[0].id : var.existing_network.route_table_id
  availability_zone = local.own_network ? coalesce(var.availability_zone, "${var.region}a") : data.aws_subnet.existing[0].availability_zone
}

resource "aws_vpc" "main" {
  count = local.own_network ? 1 : 0

  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true # private names of the interface endpoints
  tags                 = { Name = var.name }
}

resource "aws_subnet" "private" {
  count = local.own_network ? 1 : 0

  vpc_id                  = aws_vpc.main[0].id
  cidr_block              = cidrsubnet(var.vpc_cidr, 2, 0)
  availability_zone       = local.availability_zone
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.name}-private" }
}

# Holds the local route, and the one to S3 that the gateway endpoint adds; no other is ever written.
resource "aws_route_table" "private" {
  count = local.own_network ? 1 : 0

  vpc_id = aws_vpc.main[0].id
  tags   = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  count = local.own_network ? 1 : 0

  subnet_id      = aws_subnet.private[0].id
  route_table_id = aws_route_table.private[0].id
}

# Emptied, so that what forgets to name a security group reaches nothing.
resource "aws_default_security_group" "main" {
  count = local.own_network ? 1 : 0

  vpc_id = aws_vpc.main[0].id
}

# Existing network

data "aws_vpc" "existing" {
  count = local.own_network ? 0 : 1

  id = var.existing_network.vpc_id

  lifecycle {
    postcondition {
      condition     = self.enable_dns_support && self.enable_dns_hostnames
      error_message = "The existing VPC must have DNS support and DNS host names: private names of the endpoints need both."
    }
  }
}

data "aws_subnet" "existing" {
  count = local.own_network ? 0 : 1

  id = var.existing_network.subnet_id

  lifecycle {
    postcondition {
      condition     = self.vpc_id == var.existing_network.vpc_id && !self.map_public_ip_on_launch
      error_message = "The existing subnet must lie in the existing VPC, and give no public addresses."
    }
  }
}

data "aws_route_table" "existing" {
  count = local.own_network ? 0 : 1

  route_table_id = var.existing_network.route_table_id

  lifecycle {
    postcondition {
      condition = alltrue([
        for route in self.routes : !startswith(route.gateway_id, "igw-") && route.nat_gateway_id == "" && route.egress_only_gateway_id == ""
      ])
      error_message = "The existing route table leads to the internet (a gateway igw-… or a NAT): name one of a private subnet."
    }
  }
}

# Flow logs: what was let through and what was refused

resource "aws_cloudwatch_log_group" "flow" {
  count = local.own_network ? 1 : 0

  name              = "/${var.name}/flow"
  kms_key_id        = aws_kms_key.main.arn
  retention_in_days = var.log_retention_days
}

resource "aws_flow_log" "main" {
  count = local.own_network ? 1 : 0

  vpc_id          = aws_vpc.main[0].id
  traffic_type    = "ALL"
  log_destination = aws_cloudwatch_log_group.flow[0].arn
  iam_role_arn    = aws_iam_role.flow[0].arn
  tags            = { Name = var.name }
}

resource "aws_iam_role" "flow" {
  count = local.own_network ? 1 : 0

  name = "${var.name}-flow-logs"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "flow" {
  count = local.own_network ? 1 : 0

  name = "write-flow-logs"
  role = aws_iam_role.flow[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.flow[0].arn}:*"]
    }]
  })
}
