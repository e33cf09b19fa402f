# One machine runs everything: PostgreSQL, Dagster's daemon and webserver (on localhost), backups.

locals {
  # Names only. The script and Dagster's units read them; secrets lie in the parameters that they name.
  parameters = {
    owner  = "/${var.name}/db/owner"
    loader = "/${var.name}/db/loader"
    reader = "/${var.name}/db/reader"
    cipher = "/${var.name}/backup/cipher"
  }

  settings = merge(
    {
      BTC_ASSETS_LANDING_URL   = "s3://${local.landing_bucket_name}${var.landing_prefix == "" ? "" : "/${trimsuffix(var.landing_prefix, "/")}"}"
      BTC_ASSETS_LANDING_FEEDS = var.landing_feeds
      BTC_ASSETS_MODELS_URL    = "s3://${local.backup_bucket_name}"
      BTC_ASSETS_S3_REGION     = var.region
    },
    try(var.existing_landing_bucket.kms_key_arn, null) == null ? {} : { BTC_ASSETS_LANDING_ETAG = "opaque" },
    var.live_seconds == null ? {} : { BTC_ASSETS_LIVE_SECONDS = tostring(var.live_seconds) },
    var.landing_events ? { BTC_ASSETS_LANDING_EVENTS_QUEUE = aws_sqs_queue.landing[0].url } : {},
  )

  host_env = merge(local.settings, {
    AWS_REGION                  = var.region
    AWS_DEFAULT_REGION          = var.region
    HOST_NAME                   = var.name
    METRIC_NAMESPACE            = var.name
    BACKUP_BUCKET               = local.backup_bucket_name
    BACKUP_PREFIX               = var.backup_prefix
    BTC_ASSETS_COMPUTE_LOGS_URL = "s3://${local.backup_bucket_name}/dagster"
    OWNER_PARAMETER             = local.parameters.owner
    LOADER_PARAMETER            = local.parameters.loader
    READER_PARAMETER            = local.parameters.reader
    CIPHER_PARAMETER            = local.parameters.cipher
    VPC_CIDR                    = local.vpc_cidr
  })
}

data "aws_ami" "baked" {
  count = var.image_id == null ? 1 : 0

  owners      = ["self"]
  most_recent = true

  filter {
    name   = "name"
    values = ["btc-assets-*"]
  }

  filter {
    name   = "state"
    values = ["available"]
  }
}

resource "aws_instance" "host" {
  ami                         = var.image_id == null ? data.aws_ami.baked[0].id : var.image_id
  instance_type               = var.instance_type
  subnet_id                   = local.subnet_id
  vpc_security_group_ids      = [aws_security_group.host.id]
  iam_instance_profile        = aws_iam_instance_profile.host.name
  associate_public_ip_address = false
  disable_api_termination     = var.termination_protection
  monitoring                  = true # metrics each minute
  ebs_optimized               = true
  tags                        = { Name = var.name }

  user_data = templatefile("${path.module}/user_data.sh.tftpl", {
    env            = local.host_env
    device         = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${replace(aws_ebs_volume.data.id, "-", "")}"
    parameters     = local.parameters
    postgresql     = var.postgresql_version
    mirror_url     = var.package_mirror == null ? "" : "https://${var.package_mirror.bucket}.s3.${var.region}.${local.dns_suffix}/${var.package_mirror.prefix}"
    mirror_key     = try(var.package_mirror.public_key, "")
    backup_bucket  = local.backup_bucket_name
    backup_prefix  = var.backup_prefix
    region         = var.region
    allowed_ranges = [local.vpc_cidr]
  })

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    encrypted             = true
    kms_key_id            = aws_kms_key.main.arn
    volume_type           = "gp3"
    volume_size           = 20
    delete_on_termination = true
  }

  # A newer image or other names must not stop or replace a running database by the way: README.md says how it is replaced.
  lifecycle {
    ignore_changes = [ami, user_data]
  }

  # At its first start the host needs its rights and its ways to AWS.
  depends_on = [
    aws_iam_role_policy.host,
    aws_vpc_endpoint.s3,
    aws_vpc_endpoint.interface,
    aws_vpc_security_group_egress_rule.s3,
    aws_vpc_security_group_egress_rule.endpoints,
    aws_vpc_security_group_ingress_rule.endpoints,
    aws_route_table_association.private,
  ]
}

# Login: sessions instead of SSH, each recorded.

resource "aws_cloudwatch_log_group" "sessions" {
  name              = "/${var.name}/sessions"
  kms_key_id        = aws_kms_key.main.arn
  retention_in_days = var.log_retention_days
}

resource "aws_ssm_document" "session" {
  #checkov:skip=CKV_AWS_112:Sessions are under TLS already; a key of ours on top needs an endpoint for KMS, and rights to decrypt outside of services.
  name            = "${var.name}-session"
  document_type   = "Session"
  document_format = "JSON"
  content = jsonencode({
    schemaVersion = "1.0"
    description   = "A shell on the host of ${var.name}, recorded"
    sessionType   = "Standard_Stream"
    inputs = {
      cloudWatchLogGroupName      = aws_cloudwatch_log_group.sessions.name
      cloudWatchEncryptionEnabled = true
      cloudWatchStreamingEnabled  = true
      idleSessionTimeout          = "20"
      runAsEnabled                = false
    }
  })
}
