# Every rule names a security group or a managed prefix list, never a range of addresses. The VPC's DNS resolver, the clock
# (169.254.169.123) and the instance metadata are link-local services of the hypervisor, which security groups do not filter.

data "aws_ec2_managed_prefix_list" "s3" {
  name = "com.amazonaws.${var.region}.s3"
}

locals {
  endpoint_security_group_id = local.own_interface_endpoints ? aws_security_group.endpoints[0].id : var.existing_network.endpoint_security_group_id
}

resource "aws_security_group" "host" {
  name        = "${var.name}-host"
  description = "The host: PostgreSQL for clients, S3 and AWS endpoints from it"
  vpc_id      = local.vpc_id
  tags        = { Name = "${var.name}-host" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "postgresql" {
  for_each = var.client_security_group_ids

  security_group_id            = aws_security_group.host.id
  referenced_security_group_id = each.value
  description                  = "PostgreSQL from a client"
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_vpc_security_group_egress_rule" "s3" {
  security_group_id = aws_security_group.host.id
  prefix_list_id    = data.aws_ec2_managed_prefix_list.s3.id
  description       = "S3 through the gateway endpoint"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "endpoints" {
  security_group_id            = aws_security_group.host.id
  referenced_security_group_id = local.endpoint_security_group_id
  description                  = "AWS services through interface endpoints"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

resource "aws_security_group" "endpoints" {
  count = local.own_interface_endpoints ? 1 : 0

  name        = "${var.name}-endpoints"
  description = "Interface endpoints: reached by the host, reach nothing"
  vpc_id      = local.vpc_id
  tags        = { Name = "${var.name}-endpoints" }

  lifecycle {
    create_before_destroy = true
  }
}

# Also where the endpoints are somebody else's: without it the host could not reach them.
resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  security_group_id            = local.endpoint_security_group_id
  referenced_security_group_id = aws_security_group.host.id
  description                  = "AWS services for the host of ${var.name}"
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}
