# The landing bucket (created, or somebody else's), the backup bucket, and the volume that PostgreSQL lies on.

locals {
  own_landing         = var.existing_landing_bucket == null
  landing_bucket_name = local.own_landing ? coalesce(var.landing_bucket_name, "${var.name}-landing-${local.account}") : var.existing_landing_bucket.name
  landing_bucket_arn  = "arn:${local.partition}:s3:::${local.landing_bucket_name}"
  landing_account     = try(coalesce(var.existing_landing_bucket.account_id), local.account)
  landing_prefixes    = [for feed in split(",", var.landing_feeds) : "${var.landing_prefix}${trimsuffix(split("=", feed)[0], "/")}/"]
  landing_objects     = [for prefix in local.landing_prefixes : "${local.landing_bucket_arn}/${prefix}*"]

  # The host writes here and nowhere else: pgBackRest's repository, encoders, and the logs of Dagster's runs.
  backup_bucket_name = coalesce(var.backup_bucket_name, "${var.name}-backup-${local.account}")
  backup_bucket_arn  = "arn:${local.partition}:s3:::${local.backup_bucket_name}"
  backup_prefixes    = ["${var.backup_prefix}/", "models/", "dagster/"]
  backup_objects     = [for prefix in local.backup_prefixes : "${local.backup_bucket_arn}/${prefix}*"]
  read_and_write     = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]

  own_buckets = merge({ backup = local.backup_bucket_name }, local.own_landing ? { landing = local.landing_bucket_name } : {})
}

resource "aws_s3_bucket" "main" {
  #checkov:skip=CKV_AWS_144:One region on purpose; the copy in the same region spans three zones.
  #checkov:skip=CKV_AWS_18:CloudTrail's data events say who read what, in a trail that the account keeps for all buckets.
  #checkov:skip=CKV2_AWS_62:Notifications are an option (events.tf), and only of the landing bucket.
  #checkov:skip=CKV_AWS_145:The backup bucket has our key; in the landing bucket SSE-S3 keeps ETags the MD5 that the loader compares.
  for_each = local.own_buckets

  bucket = each.value

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_public_access_block" "main" {
  for_each = local.own_buckets

  bucket                  = aws_s3_bucket.main[each.key].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "main" {
  for_each = local.own_buckets

  bucket = aws_s3_bucket.main[each.key].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "main" {
  for_each = local.own_buckets

  bucket = aws_s3_bucket.main[each.key].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "main" {
  for_each = local.own_buckets

  bucket = aws_s3_bucket.main[each.key].id

  rule {
    bucket_key_enabled = each.key == "backup"

    apply_server_side_encryption_by_default {
      sse_algorithm     = each.key == "backup" ? "aws:kms" : "AES256"
      kms_master_key_id = each.key == "backup" ? aws_kms_key.main.arn : null
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "main" {
  for_each = local.own_buckets

  bucket     = aws_s3_bucket.main[each.key].id
  depends_on = [aws_s3_bucket_versioning.main]

  rule {
    id     = "forget-old-versions"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }

    expiration {
      expired_object_delete_marker = true
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }
}

# The denials concern objects (the bucket's ARN with /*), so that what manages a bucket stays possible from everywhere: a blanket
# one would lock its owner out. So does listing, because HeadBucket, which Terraform sends at every plan, is authorised as
# s3:ListBucket; it tells names, not data, and to those only whose own rights include it.
locals {
  insecure_transport = { for key, name in local.own_buckets : key => {
    Sid       = "OnlyByTLS"
    Effect    = "Deny"
    Principal = "*"
    Action    = "s3:*"
    Resource  = ["arn:${local.partition}:s3:::${name}", "arn:${local.partition}:s3:::${name}/*"]
    Condition = { Bool = { "aws:SecureTransport" = "false" } }
  } }

  bucket_statements = {
    backup = [{
      Sid       = "DataThroughOurEndpoint"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = ["${local.backup_bucket_arn}/*"]
      Condition = {
        StringNotEquals = { "aws:SourceVpce" = [local.s3_endpoint_id] }
        ArnNotEquals    = { "aws:PrincipalArn" = var.break_glass_role_arns }
      }
    }]

    landing = concat(
      [
        {
          Sid       = "DataThroughOurEndpoint"
          Effect    = "Deny"
          Principal = "*"
          NotAction = ["s3:AbortMultipartUpload", "s3:PutObject"]
          Resource  = ["${local.landing_bucket_arn}/*"]
          Condition = {
            StringNotEquals = { "aws:SourceVpce" = [local.s3_endpoint_id] }
            ArnNotEquals    = { "aws:PrincipalArn" = var.break_glass_role_arns }
          }
        },
        {
          Sid       = "WrittenByCollectors"
          Effect    = "Deny"
          Principal = "*"
          Action    = ["s3:AbortMultipartUpload", "s3:PutObject"]
          Resource  = ["${local.landing_bucket_arn}/*"]
          Condition = { ArnNotEquals = { "aws:PrincipalArn" = concat(var.collectors.role_arns, var.break_glass_role_arns) } }
        },
      ],
      length(var.collectors.vpc_endpoint_ids) == 0 ? [] : [{
        Sid       = "WrittenThroughTheirEndpoints"
        Effect    = "Deny"
        Principal = "*"
        Action    = ["s3:AbortMultipartUpload", "s3:PutObject"]
        Resource  = ["${local.landing_bucket_arn}/*"]
        Condition = {
          StringNotEquals = { "aws:SourceVpce" = var.collectors.vpc_endpoint_ids }
          ArnNotEquals    = { "aws:PrincipalArn" = var.break_glass_role_arns }
        }
      }],
      length(var.collectors.role_arns) == 0 ? [] : [{
        Sid       = "Collectors"
        Effect    = "Allow"
        Principal = { AWS = var.collectors.role_arns }
        Action    = ["s3:AbortMultipartUpload", "s3:PutObject"]
        Resource  = local.landing_objects
      }],
    )
  }
}

resource "aws_s3_bucket_policy" "main" {
  for_each = local.own_buckets

  bucket     = aws_s3_bucket.main[each.key].id
  depends_on = [aws_s3_bucket_public_access_block.main]
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = concat([local.insecure_transport[each.key]], local.bucket_statements[each.key])
  })
}

# Apart from the host, so that the host can be replaced: PostgreSQL's data outlives it.
resource "aws_ebs_volume" "data" {
  availability_zone = local.availability_zone
  type              = "gp3"
  size              = var.data_volume_gb
  encrypted         = true
  kms_key_id        = aws_kms_key.main.arn
  tags              = { Name = "${var.name}-data" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_volume_attachment" "data" {
  device_name                    = "/dev/sdf" # on today's instances it appears as an NVMe device named by the volume's id
  volume_id                      = aws_ebs_volume.data.id
  instance_id                    = aws_instance.host.id
  stop_instance_before_detaching = true
}
